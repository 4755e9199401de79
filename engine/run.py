"""The seam: the only place where stages are run, and so the only place where they are watched (and, later, cached)."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

from .observe import Observer

__all__ = ["Run"]

P = ParamSpec("P")
T = TypeVar("T")


class Run:
    """Runs stages under observers. A stage is a plain function; its `__name__` is what observers see."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def __call__(self, stage: Callable[P, T], *inputs: P.args, **watch: P.kwargs) -> T:
        with ExitStack() as watched:
            for observe in self._observers:
                watched.enter_context(observe(stage.__name__))
            return stage(*inputs, **watch)

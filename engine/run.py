"""The seam: the only place where stages are run, and so the only place where they are watched and their results kept.

A stage's positional arguments are what its result depends on, so they are its key. A value that a stage made is known by the key it was made
under and is never read for it; what comes from outside (an image's pixels, a prompt's tokens) is digested.
"""

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

from .cache import Store
from .cache.digest import UndigestedError, digest, environment_digest
from .system.timers import Observer

__all__ = ["Run", "StageCache"]

P = ParamSpec("P")
T = TypeVar("T")
Y = TypeVar("Y")


class StageCache:
    """Finds what a stage has made before. stages: those whose results are kept, and whether on disk too.

    It remembers which values it has handed out, and with them what they are; as long as it lives they are not evicted.
    """

    def __init__(
        self, store: Store, stages: Mapping[Callable[..., Any], bool], device: torch.device
    ) -> None:
        self._store, self._stages, self._device, self._hold = store, stages, device, store.hold()
        weakref.finalize(self, self._hold.close)
        self._known: dict[int, tuple[object, str]] = {}

    def keeps(self, stage: Callable[..., Any]) -> bool:
        return stage in self._stages

    def one(self, stage: Callable[..., T], inputs: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The stage's result on these inputs: found, or made. What cannot be told by its content is always made."""
        try:
            key = self._key(stage, inputs)
        except UndigestedError:
            return make()
        value = self._store.get_or_make(
            key,
            make,
            stage=stage.__name__,
            disk=self._stages[stage],
            hold=self._hold,
            device=self._device,
        )
        self._learn(value, key)
        return value

    def _key(self, stage: Callable[..., Any], inputs: tuple[Any, ...]) -> str:
        name = f"{stage.__module__}.{stage.__qualname__}"
        return digest(
            name, environment_digest(self._device), *(self._said(given) for given in inputs)
        )

    def _said(self, given: Any) -> Any:
        known = self._known.get(id(given))
        return ("made", known[1]) if known is not None else given

    def _learn(self, value: Any, key: str) -> None:
        """A value and its members: a stage may be handed one of several latents. They are kept, so that their identity stays their own."""
        self._known[id(value)] = (value, key)
        if isinstance(value, tuple):
            for number, member in enumerate(value):
                self._known[id(member)] = (member, f"{key} {number}")


class Run:
    """Runs stages under observers. A stage is a plain function; its `__name__` is what observers see."""

    def __init__(
        self, observers: Sequence[Observer] = (), keeper: StageCache | None = None
    ) -> None:
        self._observers, self._keeper = tuple(observers), keeper

    def __call__(self, stage: Callable[P, T], *inputs: P.args, **watch: P.kwargs) -> T:
        def make() -> T:
            with self._watched(stage.__name__):
                return stage(*inputs, **watch)

        if self._keeper is None or not self._keeper.keeps(stage):
            return make()
        return self._keeper.one(stage, inputs, make)

    def each(self, stage: str, turns: Generator[Y, None, T]) -> Generator[Y, None, T]:
        """A stage that gives way after every turn: watched while it works, not while its consumer does."""
        try:
            while True:
                with self._watched(stage):
                    try:
                        turn = next(turns)
                    except StopIteration as done:
                        found: T = done.value
                        return found
                yield turn
        finally:
            turns.close()

    @contextmanager
    def _watched(self, stage: str) -> Generator[None, None, None]:
        with ExitStack() as watched:
            for observe in self._observers:
                watched.enter_context(observe(stage))
            yield

"""A drag to be watched: its events, and when a preview is worth its time."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import ConfigError
from ..inputs.image import Image
from ..inputs.points import Points
from .result import EditResult

__all__ = ["Event", "PreviewPacer", "Previews"]

Previews = Literal["auto"] | int | None
"""Every so many iterations; "auto": as often as `Pace.SHARE` of the loop's time allows; None: none."""

T = TypeVar("T")
Y = TypeVar("Y")


@dataclass(frozen=True, eq=False)
class Event:
    """An iteration, from 0: where the handles are, with their targets, in image pixels; its loss; a preview where it was time for one.

    The last event has the result, and where it ended.
    """

    iteration: int
    points: Points
    loss: float
    preview: Image | None = None
    result: EditResult | None = None


class PreviewPacer:
    """When to preview. Time counts in seconds that the loop and the previews themselves took, not their consumer.

    A preview is expected to cost what the last one did (`cost_s`), the first 2.5 iterations: what decoding costs beside an iteration of
    Stable Diffusion at 512 pixels.
    """

    SHARE = 0.15

    def __init__(self, every: Previews, cost_s: float | None = None) -> None:
        _check(every)
        self.cost_s = cost_s
        self._every, self._loop_s, self._spent_s, self._turns = every, 0.0, 0.0, 0

    def turns(self, loop: Generator[Y, None, T]) -> Generator[Y, None, T]:
        """The loop, timed."""
        while True:
            started = time.perf_counter()
            try:
                turn = next(loop)
            except StopIteration as done:
                found: T = done.value
                return found
            self._loop_s += time.perf_counter() - started
            self._turns += 1
            yield turn

    def due(self) -> bool:
        """Whether the turn that has just ended is to be previewed."""
        if self._every is None:
            return False
        if self._every != "auto":
            return self._turns % self._every == 0
        cost_s = 2.5 * self._loop_s / self._turns if self.cost_s is None else self.cost_s
        return self._spent_s + cost_s <= self.SHARE * self._loop_s

    def taken(self, make: Callable[[], Image]) -> Image:
        """A preview, timed."""
        started = time.perf_counter()
        picture = make()
        self.cost_s = time.perf_counter() - started
        self._spent_s += self.cost_s
        return picture


def _check(every: Any) -> None:
    whole = isinstance(every, int) and not isinstance(every, bool)
    if every not in (None, "auto") and not (whole and every > 0):
        raise ConfigError(
            f"previews must be 'auto', None or a number of iterations from 1, got {every!r}"
        )

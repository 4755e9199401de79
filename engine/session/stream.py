"""A drag to be watched: its events, when a preview is worth its time, and how both are read."""

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import ConfigError
from ..inputs.image import Image
from ..inputs.points import Points
from ..system.worker import Job
from .result import EditResult

__all__ = ["Event", "PreviewPacer", "Previews", "read_events"]

Previews = Literal["auto"] | int | None
"""A preview every so many iterations; "auto": as often as `PreviewPacer.SHARE` of the loop's time
allows; None: none."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Event:
    """An iteration of a drag, or its end.

    Attributes:
        iteration: From 0; of the last event the last iteration again.
        points: Where the handles are, with their targets, in image pixels.
        loss: The iteration's loss; NaN where there was none.
        preview: What the picture is expected to become, where it was time for one.
        result: The result, in the last event alone.
    """

    iteration: int
    points: Points
    loss: float
    preview: Image | None = None
    result: EditResult | None = None

    @classmethod
    def last(cls, result: EditResult) -> "Event":
        """Return the event that ends a drag."""
        losses = result.history.losses
        loss = float(losses[-1]) if len(losses) else float("nan")
        return cls(len(result.history.handles) - 1, result.points, loss, result=result)


class PreviewPacer:
    """A clock that says when a preview is due.

    It counts the seconds that the loop and the previews themselves took, not their consumer. A
    preview is expected to cost what the last one did, the first 2.5 iterations: what decoding costs
    beside an iteration of Stable Diffusion at 512 pixels.

    Args:
        every: See `Previews`.
        cost_s: What the last preview of an earlier drag took.

    Raises:
        ConfigError: For an `every` that is neither.
    """

    SHARE = 0.15

    def __init__(self, every: Previews, cost_s: float | None = None) -> None:
        _check(every)
        self.cost_s = cost_s
        self._every = every
        self._loop_s = 0.0
        self._spent_s = 0.0
        self._iterations = 0

    def timed(self, loop: Iterable[T]) -> Iterator[T]:
        """Yield the loop's items, and count the time of their making."""
        items = iter(loop)
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._loop_s += time.perf_counter() - started
            self._iterations += 1
            yield item

    def is_due(self) -> bool:
        """Whether the iteration that has just ended is to be previewed."""
        if self._every is None:
            return False
        if self._every != "auto":
            return self._iterations % self._every == 0
        cost_s = self.cost_s
        if cost_s is None:
            cost_s = 2.5 * self._loop_s / self._iterations
        return self._spent_s + cost_s <= self.SHARE * self._loop_s

    def make(self, make: Callable[[], Image]) -> Image:
        """Make a preview, and count its time."""
        started = time.perf_counter()
        picture = make()
        self.cost_s = time.perf_counter() - started
        self._spent_s += self.cost_s
        return picture


class _End:
    """A mark in a queue of events: the job has ended."""


def read_events(
    submit: Callable[[Callable[[Job[T]], T]], Job[T]],
    work: Callable[[Job[T], Callable[[Event], None]], T],
) -> Generator[Event, None, T]:
    """Hand in a job, yield its events as they come, and return its result.

    The reader holds nothing: events wait in a queue, of at most one an iteration. A reader that
    leaves cancels the job, unless it has ended.

    Args:
        submit: Hands work to the worker.
        work: Called with the job and with what takes an event.
    """
    events: queue.SimpleQueue[Event | type[_End]] = queue.SimpleQueue()

    job = submit(lambda job: work(job, events.put))
    job.when_ended(lambda: events.put(_End))  # also of one that was withdrawn, and never ran
    try:
        job.wait_for_start()
        while not isinstance(event := events.get(), type):
            yield event
        return job.result()
    finally:
        job.cancel()
        job.wait()


def _check(every: Any) -> None:
    whole = isinstance(every, int) and not isinstance(every, bool)
    if every not in (None, "auto") and not (whole and every > 0):
        raise ConfigError(
            f"previews must be 'auto', None or a number of iterations from 1, got {every!r}"
        )

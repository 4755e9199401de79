"""Replay a pointer's path to a live drag, and note when which frame came."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dragnoise.engine.inputs.points import Point
from dragnoise.engine.session.live import Live, LiveFrame

__all__ = ["Arrivals", "Replay", "replay"]

_MARKS = (50, 95, 99)
_SETTLES_S = 60.0


class Arrivals:
    """The frames of a live drag, as they come; give `note` as its `on_frame`.

    Attributes:
        frames: (number of the move, seconds by perf_counter, latency in ms) of each.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[int, float, float]] = []
        self._came = threading.Semaphore(0)

    def note(self, frame: LiveFrame) -> None:
        """Note a frame of the model."""
        if frame.kind == "model":
            self.frames.append((frame.number, time.perf_counter(), frame.latency_ms))
            self._came.release()

    def wait_for(self, number: int) -> bool:
        """Wait until the frame of that move, or a later one, has come; return whether it has."""
        until = time.monotonic() + _SETTLES_S
        while not self.frames or self.frames[-1][0] < number:
            if not self._came.acquire(timeout=max(0.0, until - time.monotonic())):
                return False
        return True


@dataclass(frozen=True, eq=False)
class Replay:
    """What came of a replayed path.

    Attributes:
        events: Moves that were sent.
        seconds: From the first to the last.
        late_ms: How late a move was sent, at most: 0 where the pointer kept its pace.
        frames: That came until the last move was answered.
        stale: That answered no newer move than the frame before.
        settled: Whether the last move was answered.
        latency_ms: From a move to its frame, of those that got one.
        event_ms: From every move to the first frame that is as new, overtaken ones too.
        move_ms: How long `move` held its caller.
    """

    events: int
    seconds: float
    late_ms: float
    frames: int
    stale: int
    settled: bool
    latency_ms: Mapping[str, float]
    event_ms: Mapping[str, float]
    move_ms: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        return vars(self) | {"frames_per_s": self.frames / self.seconds}


def replay(live: Live, arrivals: Arrivals, path: Sequence[Point], rate_hz: float) -> Replay:
    """Move along a path at a rate, and wait for the frame of the last move.

    Args:
        live: A drag of one handle, whose `on_frame` is `arrivals.note`.
    """
    before = len(arrivals.frames)
    sent: list[float] = []
    moves: list[int] = []
    took: list[float] = []
    late_s = 0.0
    begun = time.perf_counter()
    for event, place in enumerate(path):
        wait_s = begun + event / rate_hz - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        late_s = max(late_s, -wait_s)
        sent.append(time.perf_counter())
        moves.append(live.move(place))
        took.append(time.perf_counter() - sent[-1])
    seconds = time.perf_counter() - begun
    settled = arrivals.wait_for(moves[-1])
    frames = arrivals.frames[before:]
    numbers = [number for number, _, _ in frames]
    return Replay(
        events=len(path),
        seconds=seconds,
        late_ms=late_s * 1e3,
        frames=len(frames),
        stale=sum(later <= earlier for earlier, later in pairwise(numbers)),
        settled=settled,
        latency_ms=_marks([latency for _, _, latency in frames]),
        event_ms=_marks(_until_as_new(moves, sent, frames)),
        move_ms=_marks([each * 1e3 for each in took]),
    )


def _until_as_new(
    moves: Sequence[int], sent: Sequence[float], frames: Sequence[tuple[int, float, float]]
) -> list[float]:
    """Return the milliseconds from every move to the first frame of it or of a later one."""
    numbers = [number for number, _, _ in frames]
    first = np.searchsorted(numbers, moves)
    return [
        (frames[index][1] - at) * 1e3
        for index, at in zip(first, sent, strict=True)
        if index < len(frames)
    ]


def _marks(values: Sequence[float]) -> dict[str, float]:
    """Return percentiles by name; empty without values."""
    if not values:
        return {}
    return {f"p{mark}": float(np.percentile(values, mark)) for mark in _MARKS}

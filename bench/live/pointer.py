"""Say where a pointer is, event by event."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from dragnoise.engine.errors import ConfigError
from dragnoise.engine.inputs.points import Point

__all__ = ["hand_path", "read_path"]

_MOVE_S = 0.7
"""Seconds of one reach of a hand."""

_TREMOR_PX = 0.4


def hand_path(
    handle: Point, size: tuple[int, int], events: int, rate_hz: float, reach_px: float
) -> list[Point]:
    """Return the places of a hand that reaches from the handle to and fro, (x, y) in pixels.

    A reach is smooth (minimum jerk: Flash and Hogan, 1985), with a little tremor, and goes to
    places on a circle in turn, by the golden angle, so that no two are alike.

    Args:
        handle: Where it begins.
        size: (width, height) of the picture, which it does not leave.
        events: How many places.
        rate_hz: Of them in a second.
        reach_px: Radius of the circle.
    """
    path = []
    for event in range(events):
        whole, share = divmod(event / rate_hz / _MOVE_S, 1)
        smooth = share**3 * (10 - 15 * share + 6 * share**2)
        begin, end = _place(int(whole), reach_px), _place(int(whole) + 1, reach_px)
        tremor = (math.sin(event * 1.7), math.sin(event * 2.3))
        place = []
        for axis in (0, 1):
            offset = begin[axis] + smooth * (end[axis] - begin[axis]) + _TREMOR_PX * tremor[axis]
            place.append(min(max(handle[axis] + offset, 0.0), size[axis] - 1.0))
        path.append((place[0], place[1]))
    return path


def _place(number: int, reach_px: float) -> Point:
    """Return the end of a reach, of the middle of the circle."""
    if number == 0:
        return 0.0, 0.0
    angle = number * math.pi * (3 - math.sqrt(5))
    return reach_px * math.cos(angle), reach_px * math.sin(angle)


def read_path(path: Path) -> list[Point]:
    """Return the places that a CSV file lists, x,y a line. Raises ConfigError."""
    try:
        rows: Sequence[Sequence[str]] = list(csv.reader(path.read_text("utf-8").splitlines()))
        return [(float(x), float(y)) for x, y in rows]
    except (OSError, ValueError) as wrong:
        raise ConfigError(f"{str(path)!r} is no list of x,y, one a line ({wrong})") from wrong

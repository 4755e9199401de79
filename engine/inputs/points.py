"""Pairs of a handle and its target, checked once."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..config import shown
from ..errors import PointError
from ..system.incoming import told_as

__all__ = ["Point", "Points", "PointsLike", "one_or_more"]

Point: TypeAlias = tuple[float, float]
"""(x, y) in image pixels; fractions are allowed."""


@dataclass(frozen=True)
class Points:
    """Pairs of a handle and the target that it shall move to.

    Make them with `Points.of`. Raises PointError if there is no pair, or a coordinate is not a
    finite number. Numbers of other libraries become Python's.

    Attributes:
        handles: Where each point is, (x, y) in image pixels.
        targets: Where each point shall move to, in the same order.
    """

    handles: tuple[Point, ...]
    targets: tuple[Point, ...]

    def __post_init__(self) -> None:
        for name in ("handles", "targets"):
            object.__setattr__(self, name, _points(getattr(self, name)))
        if not self.handles or len(self.handles) != len(self.targets):
            raise PointError(
                f"{len(self.handles)} handles and {len(self.targets)} targets; "
                "give at least one pair, each handle with its target"
            )

    @classmethod
    def of(cls, source: "PointsLike") -> "Points":
        """Make points of text or of a sequence in any of the usual spellings.

        Args:
            source: Text such as `"60,40:80,40"`, several drags separated by spaces; pairs
                `[((60, 40), (80, 40)), ...]`; fours `[(60, 40, 80, 40), ...]`; or handle and target
                in turn, `[(60, 40), (80, 40), ...]`.

        Raises:
            PointError: The source is no list of points; the message names what was seen.
        """
        if isinstance(source, Points):
            return source
        if isinstance(source, str):
            return cls._from_fours(_parsed(text) for text in source.split())
        with told_as(
            PointError, f"{shown(source)} is not a list of points; give pairs ((x, y), (x, y))"
        ):
            rows = [np.asarray(row, dtype=np.float64) for row in _plain(source)]
        if {row.shape for row in rows} == {(2,)}:
            rows = _paired(rows)
        if not {row.shape for row in rows} <= {(2, 2), (4,)}:
            raise PointError(
                f"{shown(source)} is not a list of points; give pairs ((x, y), (x, y))"
            )
        return cls._from_fours(tuple(map(float, row.ravel())) for row in rows)

    @classmethod
    def _from_fours(cls, fours: Iterable[tuple[float, ...]]) -> "Points":
        handles = []
        targets = []
        for handle_x, handle_y, target_x, target_y in fours:
            handles.append((handle_x, handle_y))
            targets.append((target_x, target_y))
        return cls(tuple(handles), tuple(targets))

    def check_inside(self, width: int, height: int) -> None:
        """Raise PointError unless every point has 0 <= x <= width - 1, 0 <= y <= height - 1."""
        for name, points in (("handle", self.handles), ("target", self.targets)):
            for x, y in points:
                if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                    raise PointError(
                        f"{name} ({x:g}, {y:g}) lies outside the {width}x{height} image; "
                        f"x goes to {width - 1}, y to {height - 1}"
                    )

    def __len__(self) -> int:
        return len(self.handles)


def one_or_more(points: "Point | Sequence[Point]") -> tuple[Point, ...]:
    """Return a tuple of points of one (x, y), or of several. Raises PointError."""
    with told_as(PointError, f"{shown(points)} is no point; give (x, y), or several of them"):
        plain = _plain(points)
        return _points((plain,) if np.ndim(plain[0]) == 0 else plain)


def _points(source: object) -> tuple[Point, ...]:
    """Return points as pairs of Python's numbers. Raises PointError."""
    with told_as(PointError, f"{shown(source)} is no list of points; give (x, y), (x, y), ..."):
        return tuple(_point(point) for point in _plain(source))


def _point(source: object) -> Point:
    what = f"{shown(source)} is not a point; give two finite numbers, x and y in pixels"
    with told_as(PointError, what):
        x, y = _plain(source)
        if isinstance(x, (str, bytes)) or isinstance(y, (str, bytes)):
            raise PointError(what)
        point = (float(x), float(y))
    if not all(map(math.isfinite, point)):
        raise PointError(what)
    return point


def _plain(source: Any) -> Any:
    """Return lists of numbers from another library's tensor, on any device; else the source."""
    if hasattr(source, "detach"):
        return source.detach().cpu().double().tolist()
    if isinstance(source, (list, tuple)):
        return [_plain(row) for row in source]
    return source


def _paired(rows: list[npt.NDArray[np.float64]]) -> list[npt.NDArray[np.float64]]:
    """Return pairs [2, 2] of handle and target from points in turn."""
    if len(rows) % 2:
        raise PointError(
            f"{len(rows)} points in turn leave a handle without a target; give an even number"
        )
    return [np.stack(rows[first : first + 2]) for first in range(0, len(rows), 2)]


def _parsed(text: str) -> tuple[float, ...]:
    """Return x, y, x, y of one drag."""
    try:
        handle, target = text.split(":")
        handle_x, handle_y = handle.split(",")
        target_x, target_y = target.split(",")
        return float(handle_x), float(handle_y), float(target_x), float(target_y)
    except ValueError as malformed:
        raise PointError(
            f"{shown(text)} is not a drag; write it as x,y:x,y, handle before target, "
            "for example 60,40:80,40"
        ) from malformed


PointsLike: TypeAlias = Points | Sequence[Any] | str
"""Whatever `Points.of` makes points of."""

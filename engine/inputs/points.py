"""Pairs of a handle and its target, checked once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np

from ..errors import PointError

__all__ = ["Point", "Points", "PointsLike"]


Point = tuple[float, float]


PointsLike: TypeAlias = "Points | Sequence[Any] | str"


@dataclass(frozen=True)
class Points:
    """Pairs of a handle and the target it shall move to, each `(x, y)` in image pixels; fractions are allowed.

    Raises PointError if there is no pair, or a coordinate is not a finite number.
    """

    handles: tuple[Point, ...]
    targets: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not self.handles or len(self.handles) != len(self.targets):
            raise PointError(
                f"{len(self.handles)} handles and {len(self.targets)} targets; give at least one pair, each handle with its target"
            )
        for point in (*self.handles, *self.targets):
            if [bool(np.isfinite(value)) for value in point] != [True, True]:
                raise PointError(
                    f"{point} is not a point; give two finite numbers, x and y in pixels"
                )

    @classmethod
    def of(cls, source: "PointsLike") -> "Points":
        """From `Points`, text (`"60,40:80,40"`, several separated by spaces), or a sequence in any of the usual spellings:

        pairs `[((60, 40), (80, 40)), ...]`, fours `[(60, 40, 80, 40), ...]`, or handle and target in turn `[(60, 40), (80, 40), ...]`.
        Raises PointError, naming what was seen.
        """
        if isinstance(source, Points):
            return source
        if isinstance(source, str):
            return cls._from_fours([_parsed(text) for text in source.split()])
        try:
            rows = [np.asarray(row, dtype=np.float64) for row in source]
        except (TypeError, ValueError) as mixed:
            raise PointError(
                f"{source!r} is not a list of points; give pairs ((x, y), (x, y))"
            ) from mixed
        shapes = {row.shape for row in rows}
        if shapes == {(2,)}:
            if len(rows) % 2:
                raise PointError(
                    f"{len(rows)} points in turn leave a handle without a target; give an even number"
                )
            rows, shapes = [np.stack(rows[i : i + 2]) for i in range(0, len(rows), 2)], {(2, 2)}
        if not shapes <= {(2, 2), (4,)}:
            raise PointError(f"{source!r} is not a list of points; give pairs ((x, y), (x, y))")
        return cls._from_fours([tuple(map(float, row.ravel())) for row in rows])

    @classmethod
    def _from_fours(cls, fours: Iterable[tuple[float, ...]]) -> Self:
        kept = list(fours)
        return cls(tuple((a, b) for a, b, _, _ in kept), tuple((c, d) for _, _, c, d in kept))

    def check_inside(self, width: int, height: int) -> None:
        """Raises PointError unless every point lies on the image: 0 <= x <= width - 1, 0 <= y <= height - 1."""
        for name, points in (("handle", self.handles), ("target", self.targets)):
            for x, y in points:
                if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                    raise PointError(
                        f"{name} ({x:g}, {y:g}) lies outside the {width}x{height} image; x goes to {width - 1}, y to {height - 1}"
                    )

    def __len__(self) -> int:
        return len(self.handles)


def _parsed(text: str) -> tuple[float, ...]:
    try:
        handle, target = text.split(":")
        (a, b), (c, d) = handle.split(","), target.split(",")
        return float(a), float(b), float(c), float(d)
    except ValueError as malformed:
        raise PointError(
            f"{text!r} is not a drag; write it as x,y:x,y, handle before target, for example 60,40:80,40"
        ) from malformed

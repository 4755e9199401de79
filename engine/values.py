"""What a person hands to an edit: an image, pairs of points, a mask. Each is checked once, here, and never changed afterwards.

Coordinates are `(x, y)` in image pixels, x to the right and y down, as every image tool has them; pixel centres are whole numbers.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from .errors import ImageError, MaskError, PointError
from .files import writable, write_whole
from .pixels import Bytes, editable, eight_bits, grey, opened, rgb

__all__ = ["Image", "ImageLike", "Mask", "MaskLike", "Point", "Points", "PointsLike"]

Point = tuple[float, float]
ImageLike = "Image | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]"
MaskLike = "Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]"
PointsLike = "Points | Sequence[Any] | str"


@dataclass(frozen=True, eq=False)
class Image:
    """A picture: `pixels` is uint8 [height, width, 3], RGB, read-only.

    Raises ImageError for anything else. Make one with `Image.of`, which takes a path, a Pillow image or an array.
    """

    pixels: Bytes

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(
                f"pixels must be uint8 [height, width, 3], got {self.pixels.dtype} {list(shape)}; use Image.of for other kinds"
            )
        kept = np.array(self.pixels, order="C")
        kept.flags.writeable = False
        object.__setattr__(self, "pixels", kept)

    @classmethod
    def of(cls, source: "Image | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]") -> "Image":
        """From a path, a Pillow image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of uint8, uint16 or floats in 0..1.

        EXIF rotation is applied, grey becomes RGB, 16 bits become 8, transparency is laid over white, of an animation the first frame is taken.
        Raises ImageError, naming what was seen.
        """
        if isinstance(source, Image):
            return source
        if isinstance(source, (str, os.PathLike)):
            return cls(np.asarray(rgb(opened(source, ImageError))))
        if isinstance(source, PIL.Image.Image):
            return cls(np.asarray(rgb(PIL.ImageOps.exif_transpose(source))))
        if isinstance(source, np.ndarray):
            return cls._of_array(source)
        raise ImageError(
            f"an image cannot be made of {type(source).__name__}; give a path, a Pillow image or a numpy array"
        )

    @classmethod
    def _of_array(cls, array: npt.NDArray[Any]) -> "Image":
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
            raise ImageError(
                f"an array of shape {list(array.shape)} is not a picture; give [H, W], [H, W, 3] or [H, W, 4]"
            )
        return cls(np.asarray(rgb(PIL.Image.fromarray(eight_bits(array, ImageError)))))

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    def to_pil(self) -> PIL.Image.Image:
        return PIL.Image.fromarray(self.pixels)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to `path` (its suffix names the format) whole or not at all: a temporary name first, then renamed. Raises OutputError."""
        target = writable(path)
        picture = self.to_pil()
        return write_whole(
            target, lambda part: picture.save(part, format=PIL.Image.registered_extensions()[target.suffix.lower()])
        )


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
                raise PointError(f"{point} is not a point; give two finite numbers, x and y in pixels")

    @classmethod
    def of(cls, source: "Points | Sequence[Any] | str") -> "Points":
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
            raise PointError(f"{source!r} is not a list of points; give pairs ((x, y), (x, y))") from mixed
        shapes = {row.shape for row in rows}
        if shapes == {(2,)}:
            if len(rows) % 2:
                raise PointError(f"{len(rows)} points in turn leave a handle without a target; give an even number")
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


@dataclass(frozen=True, eq=False)
class Mask:
    """What may change: `editable` is bool [height, width], True where the edit may act, read-only."""

    editable: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.editable.dtype != np.bool_ or self.editable.ndim != 2 or 0 in self.editable.shape:
            raise MaskError(
                f"a mask must be bool [height, width], got {self.editable.dtype} {list(self.editable.shape)}; use Mask.of for other kinds"
            )
        kept = np.array(self.editable, order="C")
        kept.flags.writeable = False
        object.__setattr__(self, "editable", kept)

    @classmethod
    def of(
        cls, source: "Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]", width: int, height: int
    ) -> "Mask":
        """From a path, a Pillow image or an array, in the image's size: white (more than half of the range, or 1 where nothing exceeds 1) may change.

        Raises MaskError for an unreadable mask or another size than `width` x `height`.
        """
        if isinstance(source, Mask):
            mask = source
        elif isinstance(source, np.ndarray):
            mask = cls(editable(source))
        elif isinstance(source, (str, os.PathLike)):
            mask = cls(editable(grey(opened(source, MaskError))))
        elif isinstance(source, PIL.Image.Image):
            mask = cls(editable(grey(PIL.ImageOps.exif_transpose(source))))
        else:
            raise MaskError(
                f"a mask cannot be made of {type(source).__name__}; give a path, a Pillow image or a numpy array"
            )
        if mask.editable.shape != (height, width):
            seen = f"{mask.editable.shape[1]}x{mask.editable.shape[0]}"
            raise MaskError(f"the mask is {seen} but the image is {width}x{height}; give a mask of the image's size")
        return mask

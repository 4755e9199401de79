"""What a person hands to an edit: an image, pairs of points, a mask. Each is checked once, here, and never changed afterwards.

Coordinates are `(x, y)` in image pixels, x to the right and y down, as every image tool has them; pixel centres are whole numbers.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from .errors import ImageError, MaskError, OutputError, PointError

__all__ = ["Image", "ImageLike", "Mask", "MaskLike", "Point", "Points", "PointsLike"]

Bytes = npt.NDArray[np.uint8]
Point = tuple[float, float]
ImageLike = "Image | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]"
MaskLike = "Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]"
PointsLike = "Points | Sequence[Any] | str"

_FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def _opened(path: str | os.PathLike[str], error: type[ImageError | MaskError]) -> PIL.Image.Image:
    try:
        with PIL.Image.open(path) as file:
            file.load()
            return PIL.ImageOps.exif_transpose(file)
    except FileNotFoundError as missing:
        raise error(f"no file at {str(path)!r}; give the path of an image") from missing
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as broken:
        raise error(f"{str(path)!r} cannot be read as an image ({broken}); give a whole PNG, JPEG, WebP, BMP or TIFF") from broken


def _eight_bits(array: npt.NDArray[Any], error: type[ImageError | MaskError]) -> Bytes:
    """uint8 from uint8, uint16 (scaled by 1/257), bool, or floats in 0..1."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.round(array / 257).astype(np.uint8)
    if array.dtype in (np.float16, np.float32, np.float64):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise error(f"float pixels must lie in 0..1, got {np.min(array)} to {np.max(array)}; scale them, or give uint8")
        return np.round(array * 255).astype(np.uint8)
    raise error(f"pixels of type {array.dtype} are not known; give uint8, uint16, or floats in 0..1")


def _rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """RGB from any mode: 16-bit grey is scaled, transparency is laid over white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        scale = 1 if values.max(initial=0) <= 255 and picture.mode != "I;16" else 257
        return PIL.Image.fromarray(np.round(values / scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), with_alpha).convert("RGB")
    return picture.convert("RGB")


@dataclass(frozen=True, eq=False)
class Image:
    """A picture: `pixels` is uint8 [height, width, 3], RGB, read-only.

    Raises ImageError for anything else. Make one with `Image.of`, which takes a path, a Pillow image or an array.
    """

    pixels: Bytes

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(f"pixels must be uint8 [height, width, 3], got {self.pixels.dtype} {list(shape)}; use Image.of for other kinds")
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
            return cls(np.asarray(_rgb(_opened(source, ImageError))))
        if isinstance(source, PIL.Image.Image):
            return cls(np.asarray(_rgb(PIL.ImageOps.exif_transpose(source))))
        if isinstance(source, np.ndarray):
            return cls._of_array(source)
        raise ImageError(f"an image cannot be made of {type(source).__name__}; give a path, a Pillow image or a numpy array")

    @classmethod
    def _of_array(cls, array: npt.NDArray[Any]) -> "Image":
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
            raise ImageError(f"an array of shape {list(array.shape)} is not a picture; give [H, W], [H, W, 3] or [H, W, 4]")
        return cls(np.asarray(_rgb(PIL.Image.fromarray(_eight_bits(array, ImageError)))))

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
        return write_whole(target, lambda part: picture.save(part, format=PIL.Image.registered_extensions()[target.suffix.lower()]))


def writable(path: str | os.PathLike[str], suffixes: Sequence[str] = _FORMATS) -> Path:
    """`path`, if a file of one of these kinds can be made there. Raises OutputError otherwise, before any work is done."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise OutputError(f"{str(path)!r} does not end in a known kind of file; use one of {', '.join(suffixes)}")
    if target.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {str(target.parent)!r} does not exist; make it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"the folder {str(target.parent)!r} cannot be written to; choose another")
    return target


def write_whole(target: Path, write: Any) -> Path:
    """Call `write(part)` with a temporary name beside `target`, then rename: a reader sees the old file or the new one, never a part.

    Raises OutputError if the disk refuses; the temporary file is gone then.
    """
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        part.replace(target)
    except OSError as refused:
        raise OutputError(f"{str(target)!r} could not be written ({refused})") from refused
    finally:
        part.unlink(missing_ok=True)
    return target


@dataclass(frozen=True)
class Points:
    """Pairs of a handle and the target it shall move to, each `(x, y)` in image pixels; fractions are allowed.

    Raises PointError if there is no pair, or a coordinate is not a finite number.
    """

    handles: tuple[Point, ...]
    targets: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not self.handles or len(self.handles) != len(self.targets):
            raise PointError(f"{len(self.handles)} handles and {len(self.targets)} targets; give at least one pair, each handle with its target")
        for point in (*self.handles, *self.targets):
            if len(point) != 2 or not all(np.isfinite(value) for value in point):
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
                    raise PointError(f"{name} ({x:g}, {y:g}) lies outside the {width}x{height} image; x goes to {width - 1}, y to {height - 1}")

    def __len__(self) -> int:
        return len(self.handles)


def _parsed(text: str) -> tuple[float, ...]:
    try:
        handle, target = text.split(":")
        (a, b), (c, d) = handle.split(","), target.split(",")
        return float(a), float(b), float(c), float(d)
    except ValueError as malformed:
        raise PointError(f"{text!r} is not a drag; write it as x,y:x,y, handle before target, for example 60,40:80,40") from malformed


@dataclass(frozen=True, eq=False)
class Mask:
    """What may change: `editable` is bool [height, width], True where the edit may act, read-only."""

    editable: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.editable.dtype != np.bool_ or self.editable.ndim != 2 or 0 in self.editable.shape:
            raise MaskError(f"a mask must be bool [height, width], got {self.editable.dtype} {list(self.editable.shape)}; use Mask.of for other kinds")
        kept = np.array(self.editable, order="C")
        kept.flags.writeable = False
        object.__setattr__(self, "editable", kept)

    @classmethod
    def of(cls, source: "Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]", width: int, height: int) -> "Mask":
        """From a path, a Pillow image or an array, in the image's size: white (more than half of the range, or 1 where nothing exceeds 1) may change.

        Raises MaskError for an unreadable mask or another size than `width` x `height`.
        """
        if isinstance(source, Mask):
            mask = source
        elif isinstance(source, np.ndarray):
            mask = cls(_editable(source))
        elif isinstance(source, (str, os.PathLike)):
            mask = cls(_editable(_grey(_opened(source, MaskError))))
        elif isinstance(source, PIL.Image.Image):
            mask = cls(_editable(_grey(PIL.ImageOps.exif_transpose(source))))
        else:
            raise MaskError(f"a mask cannot be made of {type(source).__name__}; give a path, a Pillow image or a numpy array")
        if mask.editable.shape != (height, width):
            seen = f"{mask.editable.shape[1]}x{mask.editable.shape[0]}"
            raise MaskError(f"the mask is {seen} but the image is {width}x{height}; give a mask of the image's size")
        return mask


def _grey(picture: PIL.Image.Image) -> npt.NDArray[Any]:
    if picture.mode == "1":
        return np.asarray(picture)
    return np.asarray(picture if picture.mode in ("L", "I;16") else _rgb(picture).convert("L"))


def _editable(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise MaskError(f"a mask of shape {list(array.shape)} is not [height, width]; give one channel")
    if array.dtype == np.bool_:
        return array
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 1:
        return array == 1
    if np.issubdtype(array.dtype, np.integer) and array.dtype not in (np.uint8, np.uint16):
        raise MaskError(f"mask values of type {array.dtype} lie in {array.min()}..{array.max()}; give bool, 0 and 1, uint8, uint16, or floats in 0..1")
    return _eight_bits(array, MaskError) > 127

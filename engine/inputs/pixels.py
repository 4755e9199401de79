"""Pictures of every kind that people have, as arrays of one kind."""

import os
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from ..errors import ImageError, MaskError

__all__ = [
    "Bits",
    "Bytes",
    "eight_bits",
    "frozen",
    "open_picture",
    "to_grey",
    "to_mask",
    "to_rgb",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Bits: TypeAlias = npt.NDArray[np.bool_]

A = TypeVar("A", bound=npt.NDArray[Any])

_FORMATS = "PNG, JPEG, WebP, BMP or TIFF"


def frozen(array: A) -> A:
    """Return a copy of an array, in C order, that nobody can write to."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy  # type: ignore[return-value]


def open_picture(
    source: str | os.PathLike[str] | IO[bytes],
    error: type[ImageError | MaskError],
    name: str | None = None,
) -> PIL.Image.Image:
    """Return the picture in a file, turned as its EXIF data say.

    Args:
        source: A path, or an open file.
        error: Raised if there is no file, or no whole picture in it.
        name: What a message calls the source; None: its path.
    """
    name = repr(str(source)) if name is None else name
    try:
        with PIL.Image.open(source) as file:
            file.load()
            return PIL.ImageOps.exif_transpose(file)
    except FileNotFoundError as missing:
        raise error(f"no file at {name}; give the path of an image") from missing
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as broken:
        raise error(
            f"{name} cannot be read as an image ({broken}); give a whole {_FORMATS}"
        ) from broken


def eight_bits(array: npt.NDArray[Any], error: type[ImageError | MaskError]) -> Bytes:
    """Return uint8 from uint8, uint16 (scaled by 1/257), bool, or floats in 0..1."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.round(array / 257).astype(np.uint8)
    if array.dtype in (np.float16, np.float32, np.float64):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise error(
                f"float pixels must lie in 0..1, got {np.min(array)} to {np.max(array)}; "
                "scale them, or give uint8"
            )
        return np.round(array * 255).astype(np.uint8)
    raise error(
        f"pixels of type {array.dtype} are not known; give uint8, uint16, or floats in 0..1"
    )


def to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return RGB from any mode: 16-bit grey is scaled, transparency is laid over white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        scale = 1 if values.max(initial=0) <= 255 and picture.mode != "I;16" else 257
        levels = np.round(values / scale).clip(0, 255).astype(np.uint8)
        return PIL.Image.fromarray(levels).convert("RGB")
    if picture.has_transparency_data:
        white = PIL.Image.new("RGBA", picture.size, "white")
        return PIL.Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def to_grey(picture: PIL.Image.Image) -> npt.NDArray[Any]:
    """Return one channel of a picture that is a mask."""
    if picture.mode == "1":
        return np.asarray(picture)
    return np.asarray(picture if picture.mode in ("L", "I;16") else to_rgb(picture).convert("L"))


def to_mask(array: npt.NDArray[Any]) -> Bits:
    """Return bool [H, W] from a mask of any type.

    True is more than half of the range, or 1 if nothing exceeds 1. Raises MaskError.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise MaskError(
            f"a mask of shape {list(array.shape)} is not [height, width]; give one channel"
        )
    if array.dtype == np.bool_:
        return array
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 1:
        return np.asarray(array == 1, dtype=np.bool_)
    if np.issubdtype(array.dtype, np.integer) and array.dtype not in (np.uint8, np.uint16):
        raise MaskError(
            f"mask values of type {array.dtype} lie in {array.min()}..{array.max()}; "
            "give bool, 0 and 1, uint8, uint16, or floats in 0..1"
        )
    return eight_bits(array, MaskError) > 127

"""A picture, checked once and never changed afterwards."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from ..config import LIMITS, PictureLimits
from ..errors import ImageError, OutputError
from ..system.files import PICTURES, writable, write_whole
from ..system.incoming import told_as
from .notices import listening
from .pixels import Bytes, as_array, decoded, eight_bits, frozen, open_picture, to_rgb

__all__ = ["Image", "ImageLike", "check_room"]

_KEPT: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0},  # colours as fine as brightness (4:4:4)
    "WEBP": {"lossless": True},
}
"""How a format is asked to keep what it is given; the others keep everything anyway."""

_LONGEST_PX: Mapping[str, int] = {"JPEG": 65_500, "WEBP": 16_383}
"""The longest side that a format has room for."""


@dataclass(frozen=True, eq=False)
class Image:
    """A picture whose pixels nobody can change.

    Make one with `Image.of`, which takes a path, a Pillow image or an array, or with
    `Image.from_bytes`. Raises ImageError if the pixels are no picture's.

    Attributes:
        pixels: uint8 [height, width, 3], RGB, read-only.
        notices: What was said when it was read (a colour profile that was applied, for example).
    """

    pixels: Bytes
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: object = self.pixels
        if not isinstance(given, np.ndarray):
            kind = type(given).__name__
            raise ImageError(f"pixels must be a numpy array, got {kind}; use Image.of")
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(
                f"pixels must be uint8 [height, width, 3], got {self.pixels.dtype} {list(shape)}; "
                "use Image.of for other kinds"
            )
        object.__setattr__(self, "pixels", frozen(self.pixels))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.pixels,
            self.notices,
        )  # unpickled or copied, nobody can change it either

    @classmethod
    def of(cls, source: "ImageLike", limits: PictureLimits = LIMITS) -> "Image":
        """Make an image of a path, a Pillow image or an array.

        EXIF rotation is applied, a colour profile is converted to sRGB, grey becomes RGB, 16 bits
        become 8, transparency is laid over white, of an animation the first frame is taken.

        Args:
            source: Arrays, and other libraries' tensors, are [H, W], [H, W, 1], [H, W, 3] or
                [H, W, 4] of uint8, uint16, bool or floats in 0..1. Files are PNG, JPEG, WebP,
                TIFF, BMP, GIF, AVIF, or HEIF where the package pillow_heif is installed.
            limits: How large a picture in a file may be, or one that Pillow has not decoded yet.

        Raises:
            ImageError: The source is no picture, or too large; the message names what was seen.
        """
        if isinstance(source, Image):
            return source
        with listening() as notices:
            pixels = _pixels_of(source, limits)
        return cls(pixels, tuple(notices))

    @classmethod
    def from_bytes(cls, data: bytes, limits: PictureLimits = LIMITS) -> "Image":
        """Make an image of a file's content, treated as `Image.of` treats a file.

        Args:
            data: The bytes of a whole file.
            limits: As for `Image.of`.

        Raises:
            ImageError: The bytes are no picture, or not a whole one.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ImageError(f"an image's content is bytes, got {type(data).__name__}")
        name = f"{len(data)} bytes of data"
        with listening() as notices:
            opened = open_picture(io.BytesIO(data), ImageError, limits.check_picture, name)
            pixels = to_rgb(opened, ImageError, name)
        return cls(pixels, tuple(notices))

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    def to_pil(self) -> PIL.Image.Image:
        """Return a Pillow image with a copy of the pixels."""
        return PIL.Image.fromarray(self.pixels)

    def to_bytes(self, format: str = "png") -> bytes:
        """Return the content of a file with this picture.

        Args:
            format: The suffix of a kind of file that `save` can write, in any case, with or without
                its dot: png, jpg, jpeg, webp, bmp, tif or tiff.

        Raises:
            OutputError: The format is another, or has no room for a picture of this size.
        """
        suffix = f".{str(format).lower().removeprefix('.')}"
        if suffix not in PICTURES:
            known = ", ".join(name.removeprefix(".") for name in PICTURES)
            raise OutputError(f"{format!r} is not a known kind of picture; use one of {known}")
        check_room(suffix, self.width, self.height)
        content = io.BytesIO()
        what = f"a picture of {self.width}x{self.height} cannot be written as {format}"
        with told_as(OutputError, what):
            self._write(content, suffix)
        return content.getvalue()

    def _repr_png_(self) -> bytes:
        """Show it in a notebook, as the last line of a cell."""
        return self.to_bytes("png")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a file, whole or not at all, and return its path.

        It is written under a temporary name, then renamed. PNG, WebP, BMP and TIFF keep every
        pixel; JPEG has its best quality and colours at full resolution. The colours are sRGB's;
        neither a profile nor EXIF is written.

        Args:
            path: Its suffix names the format, in any case.

        Raises:
            OutputError: The file cannot be written there, the suffix is not known, or the format
                has no room for a picture of this size.
        """
        target = writable(path)
        check_room(target.suffix, self.width, self.height)
        return write_whole(target, lambda part: self._write(part, target.suffix))

    def _write(self, file: Path | io.BytesIO, suffix: str) -> None:
        name = _format_of(suffix)
        self.to_pil().save(file, format=name, **_KEPT.get(name, {}))


def _pixels_of(source: "ImageLike", limits: PictureLimits) -> Bytes:
    """Return uint8 [H, W, 3] of a path, a Pillow image or an array."""
    if isinstance(source, (str, os.PathLike)):
        name = repr(str(source))
        return to_rgb(open_picture(source, ImageError, limits.check_picture), ImageError, name)
    if isinstance(source, PIL.Image.Image):
        return to_rgb(decoded(source, ImageError, limits.check_picture))
    array = as_array(source, ImageError)
    if array is not None:
        return _pixels_of_array(array)
    raise ImageError(
        f"an image cannot be made of {type(source).__name__}; "
        "give a path, a Pillow image or a numpy array"
    )


def _pixels_of_array(array: npt.NDArray[Any]) -> Bytes:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    plain = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not plain or 0 in array.shape:
        raise ImageError(
            f"an array of shape {list(array.shape)} is not a picture; "
            "give [H, W], [H, W, 3] or [H, W, 4]"
        )
    levels = np.ascontiguousarray(eight_bits(array, ImageError))
    return to_rgb(PIL.Image.fromarray(levels), ImageError, "the array")


def check_room(suffix: str, width: int, height: int) -> None:
    """Check that a kind of file has room for a picture of this size.

    Raises:
        OutputError: It has not.
    """
    longest = _LONGEST_PX.get(_format_of(suffix))
    if longest is not None and max(width, height) > longest:
        raise OutputError(
            f"a picture of {width}x{height} cannot be written as {suffix.removeprefix('.')}, which "
            f"has room for {longest} pixels a side; use png"
        )


def _format_of(suffix: str) -> str:
    """Return Pillow's name of the format that a suffix stands for."""
    return PIL.Image.registered_extensions()[suffix.lower()]


ImageLike: TypeAlias = Image | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]
"""Whatever `Image.of` makes an image of."""

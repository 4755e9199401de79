"""A picture, checked once and never changed afterwards."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from ..errors import ImageError
from ..system.files import writable, write_whole
from .pixels import Bytes, eight_bits, open_picture, to_rgb

__all__ = ["Image", "ImageLike"]


ImageLike: TypeAlias = "Image | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]"


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
    def of(cls, source: "ImageLike") -> "Image":
        """From a path, a Pillow image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of uint8, uint16 or floats in 0..1.

        EXIF rotation is applied, grey becomes RGB, 16 bits become 8, transparency is laid over white, of an animation the first frame is taken.
        Raises ImageError, naming what was seen.
        """
        if isinstance(source, Image):
            return source
        if isinstance(source, (str, os.PathLike)):
            return cls(np.asarray(to_rgb(open_picture(source, ImageError))))
        if isinstance(source, PIL.Image.Image):
            return cls(np.asarray(to_rgb(PIL.ImageOps.exif_transpose(source))))
        if isinstance(source, np.ndarray):
            return cls._of_array(source)
        raise ImageError(
            f"an image cannot be made of {type(source).__name__}; give a path, a Pillow image or a numpy array"
        )

    @classmethod
    def _of_array(cls, array: npt.NDArray[Any]) -> "Image":
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if (
            array.ndim not in (2, 3)
            or (array.ndim == 3 and array.shape[2] not in (3, 4))
            or 0 in array.shape
        ):
            raise ImageError(
                f"an array of shape {list(array.shape)} is not a picture; give [H, W], [H, W, 3] or [H, W, 4]"
            )
        return cls(np.asarray(to_rgb(PIL.Image.fromarray(eight_bits(array, ImageError)))))

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
            target,
            lambda part: picture.save(
                part, format=PIL.Image.registered_extensions()[target.suffix.lower()]
            ),
        )

"""The region that an edit may change, checked once."""

import io
import os
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from ..errors import MaskError
from .pixels import (
    Bits,
    CheckSize,
    as_array,
    decoded,
    frozen,
    open_picture,
    picture_to_mask,
    to_mask,
)

__all__ = ["Mask", "MaskLike"]


@dataclass(frozen=True, eq=False)
class Mask:
    """The region of a picture that an edit may change.

    Make one with `Mask.of`. Raises MaskError if the array is no mask.

    Attributes:
        editable: bool [height, width], True where the edit may act, read-only.
    """

    editable: Bits

    def __post_init__(self) -> None:
        given: object = self.editable
        if not isinstance(given, np.ndarray):
            kind = type(given).__name__
            raise MaskError(f"a mask must be a numpy array, got {kind}; use Mask.of")
        shape = self.editable.shape
        if self.editable.dtype != np.bool_ or len(shape) != 2 or 0 in shape:
            raise MaskError(
                f"a mask must be bool [height, width], got {self.editable.dtype} {list(shape)}; "
                "use Mask.of for other kinds"
            )
        object.__setattr__(self, "editable", frozen(self.editable))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.editable,)  # unpickled or copied, nobody can change it either

    @classmethod
    def of(cls, source: "MaskLike", width: int, height: int) -> "Mask":
        """Make a mask of a path, a Pillow image or an array.

        White may change: more than half of the range, or 1 if nothing exceeds 1. Of a layer that
        is transparent in part, what is painted may change, in whatever colour; only where that is
        black and white itself, its white alone.

        Args:
            source: Arrays, and other libraries' tensors, are [height, width] of bool, integers or
                floats in 0..1. Files are of the kinds that `Image.of` takes.
            width: The image's width in pixels.
            height: The image's height in pixels.

        Raises:
            MaskError: The source is no mask, or does not have the image's size.
        """
        return _mask(source, width, height)

    @classmethod
    def from_bytes(cls, data: bytes, width: int, height: int) -> "Mask":
        """Make a mask of a file's content, treated as `Mask.of` treats a file.

        Args:
            data: The bytes of a whole file.
            width: As for `of`.
            height: As for `of`.

        Raises:
            MaskError: The bytes are no mask, or it does not have the image's size.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise MaskError(f"a mask's content is bytes, got {type(data).__name__}")
        return _mask(io.BytesIO(data), width, height)


def _mask(source: object, width: int, height: int) -> Mask:
    def check_size(wide: int, high: int, name: str = "") -> None:
        """Check the size before the mask is decoded, when it may still have to be turned."""
        if (wide, high) not in ((width, height), (height, width)):
            _refuse(wide, high)

    def _refuse(wide: int, high: int) -> None:
        raise MaskError(
            f"the mask is {wide}x{high} but the image is {width}x{height}; "
            "give a mask of the image's size"
        )

    mask = source if isinstance(source, Mask) else Mask(_editable(source, check_size))
    if mask.editable.shape != (height, width):
        _refuse(mask.editable.shape[1], mask.editable.shape[0])
    return mask


def _editable(source: object, check_size: CheckSize) -> Bits:
    """Return bool [H, W] of whatever a person has for a mask."""
    if isinstance(source, (str, os.PathLike)):
        opened = open_picture(source, MaskError, check_size)
        return picture_to_mask(opened, repr(str(source)))
    if isinstance(source, io.BytesIO):
        name = f"{source.getbuffer().nbytes} bytes of data"
        return picture_to_mask(open_picture(source, MaskError, check_size, name), name)
    if isinstance(source, PIL.Image.Image):
        return picture_to_mask(decoded(source, MaskError, check_size))
    array = as_array(source, MaskError)
    if array is not None:
        return to_mask(array)
    raise MaskError(
        f"a mask cannot be made of {type(source).__name__}; "
        "give a path, a Pillow image or a numpy array"
    )


MaskLike: TypeAlias = Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]
"""Whatever `Mask.of` makes a mask of."""

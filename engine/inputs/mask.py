"""The region that an edit may change, checked once."""

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from ..errors import MaskError
from .pixels import Bits, frozen, open_picture, to_grey, to_mask

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

        White may change: more than half of the range, or 1 if nothing exceeds 1.

        Args:
            source: Arrays are [height, width] of bool, integers or floats in 0..1.
            width: The image's width in pixels.
            height: The image's height in pixels.

        Raises:
            MaskError: The source is no mask, or does not have the image's size.
        """
        if isinstance(source, Mask):
            mask = source
        elif isinstance(source, np.ndarray):
            mask = cls(to_mask(source))
        elif isinstance(source, (str, os.PathLike)):
            mask = cls(to_mask(to_grey(open_picture(source, MaskError))))
        elif isinstance(source, PIL.Image.Image):
            mask = cls(to_mask(to_grey(PIL.ImageOps.exif_transpose(source))))
        else:
            raise MaskError(
                f"a mask cannot be made of {type(source).__name__}; "
                "give a path, a Pillow image or a numpy array"
            )
        if mask.editable.shape != (height, width):
            seen = f"{mask.editable.shape[1]}x{mask.editable.shape[0]}"
            raise MaskError(
                f"the mask is {seen} but the image is {width}x{height}; "
                "give a mask of the image's size"
            )
        return mask


MaskLike: TypeAlias = Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]
"""Whatever `Mask.of` makes a mask of."""

"""What an edit may change, checked once."""

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from ..errors import MaskError
from .pixels import open_picture, to_grey, to_mask

__all__ = ["Mask", "MaskLike"]


MaskLike: TypeAlias = "Mask | PIL.Image.Image | npt.NDArray[Any] | str | os.PathLike[str]"


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
    def of(cls, source: "MaskLike", width: int, height: int) -> "Mask":
        """From a path, a Pillow image or an array, in the image's size: white (more than half of the range, or 1 where nothing exceeds 1) may change.

        Raises MaskError for an unreadable mask or another size than `width` x `height`.
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
                f"a mask cannot be made of {type(source).__name__}; give a path, a Pillow image or a numpy array"
            )
        if mask.editable.shape != (height, width):
            seen = f"{mask.editable.shape[1]}x{mask.editable.shape[0]}"
            raise MaskError(
                f"the mask is {seen} but the image is {width}x{height}; give a mask of the image's size"
            )
        return mask

"""How large a picture may be."""

from dataclasses import dataclass

from ..errors import ImageError
from .settings import Settings

__all__ = ["LIMITS", "PictureLimits"]


@dataclass(frozen=True)
class PictureLimits(Settings):
    """How large a picture may be. A small file can hold a huge one.

    They are compared with what a file's first bytes say, before anything is decoded.

    Attributes:
        picture_pixels: Most pixels of a picture that is read, 1 to 178,956,970 (Pillow's limit).
        picture_side: Most pixels of a side of it, 1 to 65,535.
        edit_pixels: Most pixels of a picture that is edited or generated, 1 to 178,956,970: the
            work and the memory grow faster than they do.

    Raises:
        ConfigError: Naming the value and its range.
    """

    picture_pixels: int = 50_000_000
    picture_side: int = 16_384
    edit_pixels: int = 4_194_304

    def __post_init__(self) -> None:
        self._check_whole("picture_pixels", 1, 178_956_970)
        self._check_whole("picture_side", 1, 65_535)
        self._check_whole("edit_pixels", 1, 178_956_970)

    def check_picture(self, width: int, height: int, name: str) -> None:
        """Check a picture's size before it is decoded.

        Raises:
            ImageError: Naming the size, the limit and the setting.
        """
        if max(width, height) > self.picture_side:
            raise ImageError(
                f"{name} is {width}x{height}; a picture may have {self.picture_side} pixels a "
                "side; make it smaller, or raise picture_side (PictureLimits)"
            )
        if width * height > self.picture_pixels:
            raise ImageError(
                f"{name} is {width}x{height}, {width * height} pixels; a picture may have "
                f"{self.picture_pixels}; make it smaller, or raise picture_pixels (PictureLimits)"
            )

    def check_edit(self, width: int, height: int) -> None:
        """Check the size of a picture that is to be edited or generated.

        Raises:
            ImageError: Naming the size, the limit and the setting.
        """
        if width * height > self.edit_pixels:
            raise ImageError(
                f"a picture of {width}x{height} has {width * height} pixels; {self.edit_pixels} "
                "can be edited or generated; make it smaller, or raise edit_pixels (PictureLimits)"
            )


LIMITS = PictureLimits()
"""The limits where no others are given."""

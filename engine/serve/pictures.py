"""Pictures as they come and go: judged by their first bytes, decoded once, encoded as asked."""

import io
from dataclasses import dataclass

import PIL.Image

from ..config import PictureLimits
from ..errors import ImageError
from ..inputs.image import Image
from ..inputs.mask import Mask
from .refusals import Refusal

__all__ = ["encoded", "mask_of", "mask_png", "picture_of"]

_KNOWN = "PNG, JPEG, WebP, AVIF or TIFF"
_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)

_PILLOWS = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
"""What Pillow raises of a size before it tells it."""


@dataclass(frozen=True)
class _Limits(PictureLimits):
    """Limits of which a service's client is told that they are limits."""

    def check_picture(self, width: int, height: int, name: str) -> None:
        """Check that a picture may be read, and edited. Raises Refusal."""
        try:
            super().check_picture(width, height, name)
            self.check_edit(width, height)
        except ImageError as large:
            raise Refusal("too_large", str(large)) from large


def picture_of(data: bytes, limits: PictureLimits) -> Image:
    """Return the picture in a file's content.

    Raises:
        Refusal: It is of another format, or too large: known before anything is decoded.
        ImageError: It is none, or not a whole one.
    """
    _check_known(data)
    try:
        return Image.from_bytes(data, _Limits(**limits.to_dict()))
    except ImageError as refused:
        if isinstance(refused.__cause__, _PILLOWS):
            raise Refusal("too_large", str(refused)) from refused
        raise


def mask_of(data: bytes, width: int, height: int) -> Mask:
    """Return the mask in a file's content.

    Raises:
        Refusal: It is of another format.
        MaskError: It is none, or has another size: known before it is decoded.
    """
    _check_known(data)
    return Mask.from_bytes(data, width, height)


def mask_png(mask: Mask) -> bytes:
    """Return a mask's file: white where it is set."""
    content = io.BytesIO()
    PIL.Image.fromarray(mask.editable).save(content, "PNG")
    return content.getvalue()


def encoded(image: Image, format: str, quality: int) -> bytes:
    """Return a frame's file, made quickly.

    Args:
        image: The frame.
        format: "jpeg", "webp" or "png".
        quality: 1 to 100; of PNG it is none.
    """
    content = io.BytesIO()
    picture = PIL.Image.fromarray(image.pixels)
    if format == "png":
        picture.save(content, "PNG", compress_level=1)
    elif format == "webp":
        picture.save(content, "WEBP", quality=quality, method=0)
    else:
        picture.save(content, "JPEG", quality=quality)
    return content.getvalue()


def _check_known(data: bytes) -> None:
    """Raise Refusal for a file that does not begin as one of the formats does."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    is_avif = data[4:8] == b"ftyp" and (b"avif" in data[8:64] or b"avis" in data[8:64])
    if not (data.startswith(_BEGINNINGS) or is_webp or is_avif):
        raise Refusal("unsupported", f"{len(data)} bytes are no {_KNOWN}; give one of these")

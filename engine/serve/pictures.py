"""Pictures as they come and go: judged by their first bytes, decoded once, encoded as asked."""

import io

import PIL.Image

from ..config import PictureLimits
from ..errors import ImageError
from ..inputs.image import Image
from ..inputs.mask import Mask
from .refusals import Refusal

__all__ = ["FORMATS", "encoded", "mask_of", "picture_of"]

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
"""Pillow's names of the formats that a service reads."""

_KNOWN = "PNG, JPEG, WebP, AVIF or TIFF"
_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)


def picture_of(data: bytes, limits: PictureLimits) -> Image:
    """Return the picture in a file's content.

    Raises:
        Refusal: It is of another format, or too large: known before anything is decoded.
        ImageError: It is none, or not a whole one.
    """
    width, height = _opened(data, "image").size
    try:
        limits.check_picture(width, height, "the picture")
        limits.check_edit(width, height)
    except ImageError as large:
        raise Refusal("too_large", str(large)) from large
    return Image.from_bytes(data, limits)


def mask_of(data: bytes, width: int, height: int) -> Mask:
    """Return the mask in a file's content.

    Raises:
        Refusal: It is of another format.
        MaskError: It is none, or has another size: known before it is decoded.
    """
    return Mask.of(_opened(data, "mask"), width, height)


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


def _opened(data: bytes, code: str) -> PIL.Image.Image:
    """Return a picture whose first bytes were read, and no more."""
    if not _is_known(data):
        raise Refusal("unsupported", f"{len(data)} bytes are no {_KNOWN}; give one of these")
    try:
        return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as bomb:
        raise Refusal("too_large", "the picture has far too many pixels; make it smaller") from bomb
    except Exception as broken:
        raise Refusal(code, f"the {code} cannot be read; give a whole {_KNOWN}") from broken


def _is_known(data: bytes) -> bool:
    """Whether a file begins as one of the formats does."""
    if data.startswith(_BEGINNINGS):
        return True
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp or (data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1"))

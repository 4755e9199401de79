"""The gate for pictures: what people have, of every kind, as arrays of one kind.

Files are read here alone. Their formats are those of a list: Pillow knows others, one of which
starts a program. Their size is compared with the limits before anything is decoded, and whatever a
decoder raises becomes an error of ours. Colours become sRGB.
"""

import importlib.util
import io
import os
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image

from ..errors import ImageError, MaskError
from ..system.incoming import open_regular, told_as
from .colours import Transform, srgb_transform
from .notices import say

__all__ = [
    "Bits",
    "Bytes",
    "CheckSize",
    "as_array",
    "decoded",
    "eight_bits",
    "frozen",
    "open_picture",
    "picture_to_mask",
    "to_mask",
    "to_rgb",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Bits: TypeAlias = npt.NDArray[np.bool_]
Picture: TypeAlias = PIL.Image.Image
Raised: TypeAlias = type[ImageError | MaskError]
CheckSize: TypeAlias = Callable[[int, int, str], None]
"""Called with the width, the height and the name of a picture before it is decoded; raises."""

A = TypeVar("A", bound=npt.NDArray[Any])

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
"""The formats that are read; the last two where Pillow, or `pillow_heif`, can."""

_KNOWN = "PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIF"
_PILLOW = "the Pillow image"

_FILE_BYTES = 2**30
"""The longest file that is opened: some decoders read it whole before they know its size."""

_HALF_LEVEL = 0.5 / 255
"""So far may floats lie outside 0..1: they become 0 or 255 as those inside do."""

_ROWS = 64
"""Rows that are converted at a time: a picture's intermediate values would take 4 to 16 bytes."""

_ORIENTATION = 0x0112
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""What undoes the orientation that EXIF data name."""


def frozen(array: A) -> A:
    """Return a copy of an array, in C order, that nobody can write to."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy  # type: ignore[return-value]


# Files, and pictures that Pillow has opened.


def open_picture(
    source: str | os.PathLike[str] | IO[bytes],
    error: Raised,
    check_size: CheckSize,
    name: str | None = None,
) -> Picture:
    """Return the picture in a file, decoded, and turned as its EXIF data say.

    Args:
        source: A path, or an open file.
        error: Raised if there is no regular file, or no whole picture of a known format in it.
        check_size: Called before the picture is decoded.
        name: What a message calls the source; None: its path.
    """
    name = repr(str(source)) if name is None else name
    if isinstance(source, (str, os.PathLike)):
        with open_regular(source, error) as file:
            if (length := os.fstat(file.fileno()).st_size) > _FILE_BYTES:
                raise error(f"{name} has {length} bytes; a picture may have {_FILE_BYTES}")
            return _read(file, error, check_size, name)
    return _read(source, error, check_size, name)


def _read(file: IO[bytes], error: Raised, check_size: CheckSize, name: str) -> Picture:
    """Return the picture in an open file; a PNG whose notes are refused is read without them."""
    what = f"{name} cannot be read as an image; give a whole {_KNOWN}"

    def read(content: IO[bytes]) -> Picture:
        with told_as(error, what):
            opened = PIL.Image.open(content, formats=_formats())
        return decoded(opened, error, check_size, name, what)

    try:
        return read(file)
    except error as refused:
        bare = _png_without_notes(file) if refused.__cause__ is not None else None
        if bare is None:
            raise
        picture = read(bare)
    say(f"{name} holds texts or a colour profile that cannot be read; they are ignored")
    return picture


def decoded(
    picture: Picture,
    error: Raised,
    check_size: CheckSize,
    name: str = _PILLOW,
    what: str = f"{_PILLOW} cannot be decoded",
) -> Picture:
    """Return a picture that Pillow has opened, decoded, and turned as its EXIF data say.

    Args:
        picture: It may not have been decoded yet.
        error: Raised if it cannot be.
        check_size: Called before it is decoded.
        name: What a message calls it.
        what: The first words of a message that it cannot be decoded.
    """
    check_size(*picture.size, name)
    with told_as(error, what):
        if picture.format == "EPS" and getattr(picture, "tile", None):
            raise error(f"{name} is PostScript, a program; give its pixels")
        picture.load()
        check_size(*picture.size, name)  # a GIF's first frame may be larger than it said
    return _turned(picture, name)


def _formats() -> tuple[str, ...]:
    """Return the formats of the list that this Pillow can read."""
    PIL.Image.init()
    if "HEIF" not in PIL.Image.OPEN and importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def _turned(picture: Picture, name: str) -> Picture:
    try:
        with told_as(ImageError, f"the EXIF data of {name} are ignored: they cannot be read"):
            turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
            return picture if turn is None else picture.transpose(turn)
    except ImageError as malformed:
        say(str(malformed))
        return picture


_PNG = b"\x89PNG\r\n\x1a\n"
_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def _png_without_notes(file: IO[bytes]) -> IO[bytes] | None:
    """Return a PNG without its texts and its colour profile; None for another file."""
    file.seek(0)
    if file.read(len(_PNG)) != _PNG:
        return None
    chunks = (chunk for kind, chunk in _png_chunks(file) if kind not in _NOTES)
    return io.BytesIO(_PNG + b"".join(chunks))


def _png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the bytes of every chunk, as far as they go."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, head + file.read(length + 4)


# Arrays.


def as_array(source: object, error: Raised) -> npt.NDArray[Any] | None:
    """Return an array of whatever other libraries call one (PyTorch, JAX); None for other things.

    A tensor may lie on any device, require a gradient, and have any precision.
    """
    if isinstance(source, np.ndarray):
        return source
    if not hasattr(source, "__array__"):
        return None
    tensor: Any = source
    with told_as(error, f"an array cannot be made of {type(source).__name__}"):
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().cpu()
            tensor = tensor.float() if tensor.is_floating_point() else tensor
        return np.asarray(tensor)


def eight_bits(array: npt.NDArray[Any], error: Raised) -> Bytes:
    """Return uint8 from uint8, uint16 (scaled by 1/257), bool, or floats in 0..1.

    Of any byte order. Floats may lie half a level (1/510) outside 0..1: they are rounded anyway.
    """
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.newbyteorder("=") == np.uint16:
        return np.asarray((array.astype(np.uint32) + 128) // 257, np.uint8)
    if kind == "f" and array.dtype.itemsize <= 8:
        return _unit_to_levels(array, error)
    raise error(
        f"pixels of type {array.dtype} are not known; give uint8, uint16, or floats in 0..1"
    )


def _unit_to_levels(array: npt.NDArray[Any], error: Raised) -> Bytes:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    low, high = native.min(), native.max()
    if not (low >= -_HALF_LEVEL and high <= 1 + _HALF_LEVEL):  # nor if one is NaN
        raise error(
            f"float pixels must lie in 0..1, got {low} to {high}; scale them, or give uint8"
        )
    return np.round(native * 255).clip(0, 255).astype(np.uint8)


# Pictures to RGB.


def to_rgb(picture: Picture, error: Raised = ImageError, name: str = _PILLOW) -> Bytes:
    """Return uint8 [H, W, 3], sRGB, from a decoded picture of any mode.

    Its colour profile is applied, 16 bits are scaled, transparency is laid over white.
    """
    convert = _to_rgb_strip(picture, error, name)
    width, height = picture.size
    with told_as(error, f"{name} cannot be converted to RGB"):
        levels = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, _ROWS):
            strip = picture.crop((0, top, width, min(top + _ROWS, height)))
            levels[top : top + _ROWS] = np.asarray(convert(strip))
        is_invisible = levels.min() == 255 and _is_invisible(picture)
    if is_invisible:
        say(
            f"{name} is transparent everywhere (alpha 0 at all {width * height} pixels), so it is "
            "white; save it without transparency"
        )
    return levels


def _is_invisible(picture: Picture) -> bool:
    """Whether nothing of a picture is to be seen."""
    if _is_deep(picture) or not picture.has_transparency_data:
        return False
    return picture.convert("RGBA").getchannel("A").getextrema() == (0, 0)


def _to_rgb_strip(picture: Picture, error: Raised, name: str) -> Callable[[Picture], Picture]:
    """Return what makes RGB of a strip of this picture."""
    to_srgb = srgb_transform(picture, name)
    if not _is_deep(picture):
        return lambda strip: _over_white(strip, to_srgb)
    with told_as(error, f"{name} cannot be converted to 8 bits"):
        scale = _deep_scale(picture, error)
    return lambda strip: to_srgb(_shallow(strip, scale, error))


def _over_white(strip: Picture, to_srgb: Transform) -> Picture:
    if not strip.has_transparency_data:
        return to_srgb(strip)
    coloured = strip.convert("RGBA")
    opaque = to_srgb(coloured.convert("RGB"))
    opaque.putalpha(coloured.getchannel("A"))
    white = PIL.Image.new("RGBA", strip.size, "white")
    return PIL.Image.alpha_composite(white, opaque).convert("RGB")


def _is_deep(picture: Picture) -> bool:
    """Whether a picture has more than 8 bits a channel."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _deep_scale(picture: Picture, error: Raised) -> float:
    """Return what a value of a deep picture is divided by to lie in 0..255.

    Floats in 0..1 are shares, as in arrays; other numbers are levels of 8 bits, or of 16.
    """
    if picture.mode.startswith("I;16"):
        return 257
    extrema: Any = picture.getextrema()
    low, high = extrema
    if picture.mode == "F" and low >= -_HALF_LEVEL and high <= 1 + _HALF_LEVEL:
        return 1 / 255
    if not (low >= 0 and high <= 65535):
        raise error(
            f"pixels from {low:g} to {high:g} are neither floats in 0..1 nor levels up to 255 or "
            "65535; scale them"
        )
    return 1 if high <= 255 else 257


def _shallow(strip: Picture, scale: float, error: Raised) -> Picture:
    """Return 8-bit grey of a strip of a deep picture."""
    values = np.asarray(strip)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise error("float pixels must be finite, got NaN or infinity; replace them")
        if scale >= 1 and (values != np.rint(values)).any():
            raise error(
                f"float pixels must lie in 0..1, or be whole levels, got {values.min():g} to "
                f"{values.max():g}; scale them"
            )
    return PIL.Image.fromarray(np.round(values / scale).clip(0, 255).astype(np.uint8))


# Pictures and arrays to masks.


def picture_to_mask(picture: Picture, name: str = _PILLOW) -> Bits:
    """Return bool [H, W] from a decoded picture that is a mask.

    Where its transparency varies, what is painted may change and the transparent rest may not,
    whatever the colours; unless what is painted is black and white itself. Else the colours count.
    """
    what = f"{name} cannot be read as a mask"
    if _is_deep(picture) or not picture.has_transparency_data:
        with told_as(MaskError, what):
            return to_mask(_grey(picture, name))
    with told_as(MaskError, what):
        layer = picture.convert("RGBA")
        alpha = np.asarray(layer.getchannel("A"))
    if not alpha.any():
        say(
            f"{name} is a mask that is transparent everywhere (alpha 0 at all {alpha.size} "
            "pixels), so the whole picture is held in place; paint what may change"
        )
        return np.zeros(alpha.shape, np.bool_)
    return _painted(layer.convert("RGB"), alpha)


def _painted(colours: Picture, alpha: Bytes) -> Bits:
    """Return what is painted on a layer that is not transparent everywhere."""
    light = to_mask(np.asarray(colours.convert("L")))
    if alpha.min() == alpha.max():
        return light
    visible = alpha > 127
    return visible & light if _is_black_and_white(colours, visible) else visible


def _is_black_and_white(colours: Picture, visible: Bits) -> bool:
    """Whether what is visible is grey, with both black and white in it."""
    pixels = np.asarray(colours)[visible]
    if not pixels.size:
        return False
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    return bool((high - low).max() <= 16 and low.min() < 64 and high.max() > 191)


def _grey(picture: Picture, name: str) -> npt.NDArray[Any]:
    """Return one channel of an opaque picture."""
    if picture.mode in ("1", "L"):
        return np.asarray(picture)
    if picture.mode.startswith("I;16"):
        return np.asarray(picture)
    if _is_deep(picture):
        return to_rgb(picture, MaskError, name)[..., 0]
    return np.asarray(picture.convert("RGB").convert("L"))


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
    whole = array.dtype.kind in "iu"
    if whole and array.min() >= 0 and array.max() <= 1:
        return np.asarray(array == 1, dtype=np.bool_)
    if whole and array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise MaskError(
            f"mask values of type {array.dtype} lie in {array.min()}..{array.max()}; "
            "give bool, 0 and 1, uint8, uint16, or floats in 0..1"
        )
    return eight_bits(array, MaskError) > 127

"""Pictures that nobody would paint: bombs, broken ones, and every kind that Pillow can write."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin

__all__ = ["BOMBS", "exif_bytes", "kinds", "mutated", "png", "profile", "tiff"]

PNG = b"\x89PNG\r\n\x1a\n"
GREY, RGB, RGBA = 0, 2, 6
CHANNELS = {GREY: 1, RGB: 3, RGBA: 4}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int = 8, colour: int = GREY, *chunks: bytes) -> bytes:
    """Return a black PNG of any size, some kB long; `chunks` stand before its pixels."""
    pack = zlib.compressobj(9)
    row = bytes(1 + (width * bits * CHANNELS[colour] + 7) // 8)
    rows = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = b"".join(chunks) + _chunk(b"IDAT", rows)
    return PNG + _chunk(b"IHDR", head) + body + _chunk(b"IEND", b"")


def png_notes(kind: bytes, megabytes: int, count: int = 1) -> bytes:
    """Return a PNG with compressed texts, or a profile, of so many megabytes each."""
    squeezed = zlib.compress(bytes(megabytes * 2**20), 9)
    before = {b"zTXt": b"n\0\0", b"iTXt": b"n\0\1\0\0\0", b"iCCP": b"n\0\0"}[kind]
    return png(8, 8, 8, RGB, *[_chunk(kind, before + squeezed)] * count)


def tiff(
    width: int,
    height: int,
    data: bytes,
    bits: int = 8,
    compression: int = 1,
    sample: int = 1,
    big: bool = False,
) -> bytes:
    """Return a grey TIFF of one strip. sample: 1 unsigned, 2 signed, 3 floats."""
    order = ">" if big else "<"
    short = 16 if big else 0  # a short stands in the first half of its four bytes
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits << short)]
    tags += [(259, 3, compression << short), (262, 3, 1 << short), (273, 4, 8)]
    tags += [(277, 3, 1 << short), (278, 4, height), (279, 4, len(data)), (339, 3, sample << short)]
    table = struct.pack(f"{order}H", len(tags)) + bytes(0)
    table += b"".join(struct.pack(f"{order}HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + table + bytes(4)


def _gif(side: int) -> bytes:
    content = io.BytesIO()
    PIL.Image.new("P", (200, 200)).save(content, "GIF")
    screen = bytearray(content.getvalue())
    screen[6:10] = struct.pack("<HH", side, side)
    return bytes(screen)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "PNG 30000x30000, 1 bit": lambda: png(30_000, 30_000, 1),
    "PNG 13300x13300, 1 bit": lambda: png(13_300, 13_300, 1),
    "PNG 9400x9400, 1 bit": lambda: png(9400, 9400, 1),
    "PNG 9400x9400, RGBA": lambda: png(9400, 9400, 8, RGBA),
    "PNG 9400x9400, 16 bit": lambda: png(9400, 9400, 16),
    "PNG 20000x1": lambda: png(20_000, 1),
    "TIFF 100000x100000": lambda: tiff(100_000, 100_000, b"no"),
    "TIFF 4e9x1": lambda: tiff(4 * 10**9, 1, b"no"),
    "TIFF deflate 13000x13000": lambda: tiff(
        13_000, 13_000, zlib.compress(bytes(13_000**2)), compression=8
    ),
    "GIF screen 65535x65535": lambda: _gif(65_535),
    "GIF screen 13000x13000": lambda: _gif(13_000),
    "PNG of 64 zTXt of 1 MB": lambda: png_notes(b"zTXt", 1, 70),
}
"""Small files of pictures that would fill the memory, by what they are."""


def profile() -> bytes:
    """Return a colour profile, sRGB's."""
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


UNREADABLE = {"TIFF YCbCr"} if int(PIL.__version__.partition(".")[0]) < 13 else set()
"""What Pillow writes and then cannot read itself."""


def kinds(formats: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a file of 24x16 pixels for every format and mode of a table."""
    ramp = np.indices((16, 24)).sum(0)[..., None] * [5, 3, 2] % 256
    picture = PIL.Image.fromarray(ramp.astype(np.uint8))
    for name, modes in formats.items():
        for mode in modes:
            if f"{name} {mode}" in UNREADABLE:
                continue
            content = io.BytesIO()
            through = picture.convert("L") if mode in ("I", "F", "I;16") else picture
            through.convert(mode).save(content, name)
            yield f"{name} {mode}", content.getvalue()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a file with some bytes changed, cut, doubled or put in."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed))
        # Most of what a decoder believes stands at the beginning.
        at = at if chance.random() < 0.5 else at % 64 % len(changed)
        how = chance.randrange(5)
        if how == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif how == 2:
            del changed[max(at, 1) :]
        elif how == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            changed[at : at + 4] = struct.pack(">I", chance.choice((0, 2**31, 2**32 - 1)))
    return bytes(changed)


def exif_bytes(chance: random.Random) -> bytes:
    """Return an EXIF header with random tags, kinds, counts and offsets."""
    order = chance.choice("<>")
    tags = [0x0112, 0x0112, 0x8769, 0x8825, 0x011A, 0x0100, chance.randrange(2**16)]
    entries = []
    for _ in range(chance.randrange(0, 6)):
        kind = chance.choice((1, 2, 3, 4, 5, 7, 10, 12, 13, 0, 99))
        count = chance.choice((0, 1, 1, 2, 5, 2**16, 2**31))
        value = chance.choice((0, 6, 8, 26, 2**31, 2**32 - 1, chance.randrange(2**32)))
        entries.append(struct.pack(f"{order}HHII", chance.choice(tags), kind, count, value))
    told = chance.choice((len(entries), len(entries), 0, 2**16 - 1))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    body = struct.pack(f"{order}H", told) + b"".join(entries) + chance.randbytes(24)
    header = chance.choice((b"Exif\0\0", b"Exif\0\0", b"")) + head + body
    return header[: chance.choice((len(header), len(header), chance.randrange(len(header))))]

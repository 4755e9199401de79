"""A frame on the wire: sixteen bytes, then the picture's file.

0-1    "DN"
2      version: 1
3      kind: 1 model, 2 refined
4      format: 0 JPEG, 1 WebP, 2 PNG
5-7    0
8-11   seq, uint32 little-endian, of the move that it answers
12-15  milliseconds from the move's arrival to the frame, float32 little-endian
16-    the picture
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FORMATS", "KINDS", "Frame"]

KINDS: Mapping[str, int] = {"warped": 0, "model": 1, "refined": 2}
FORMATS: Mapping[str, int] = {"jpeg": 0, "webp": 1, "png": 2}

_HEAD = struct.Struct("<2sBBB3xIf")
_MAGIC = b"DN"
_VERSION = 1


@dataclass(frozen=True)
class Frame:
    """A picture of a drag that goes on, as it is sent.

    Attributes:
        kind: One of `KINDS`.
        format: One of `FORMATS`.
        seq: Of the move that it answers.
        ms: Milliseconds from the move's arrival to the frame.
        picture: The file's content.
    """

    kind: str
    format: str
    seq: int
    ms: float
    picture: bytes

    def packed(self) -> bytes:
        """Return the message."""
        kind, format = KINDS[self.kind], FORMATS[self.format]
        return _HEAD.pack(_MAGIC, _VERSION, kind, format, self.seq, self.ms) + self.picture

    @classmethod
    def of(cls, message: bytes) -> "Frame":
        """Return the frame in a message. Raises ValueError where it is none."""
        if len(message) < _HEAD.size:
            raise ValueError(f"a frame has {_HEAD.size} bytes or more, got {len(message)}")
        magic, version, kind, format, seq, ms = _HEAD.unpack_from(message)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"this is no frame of version {_VERSION}: {message[:3]!r}")
        return cls(_name(KINDS, kind), _name(FORMATS, format), seq, ms, message[_HEAD.size :])


def _name(names: Mapping[str, int], number: int) -> str:
    """Return the name that has a number. Raises ValueError where none has."""
    for name, each in names.items():
        if each == number:
            return name
    raise ValueError(f"a frame's byte is {number}; known: {dict(names)}")

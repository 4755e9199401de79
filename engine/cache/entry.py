"""An entry on disk: a safetensors file that is sealed with the user's key.

The seal covers the header, which holds the digest of the rest, and the file's size. So a header is
believed before a byte behind it is read, and nobody without the key can make an entry, change one,
rename one or make it seem long.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from safetensors.torch import save
from torch import Tensor

from .digest import bytes_digest
from .sealed import BrokenError, is_digest, load_spans

__all__ = ["read_entry", "read_head", "seal_entry"]

_FORMAT = "dragnoise entry 1"
"""The container: the header's fields and how the seal is made."""

_BLANK = "0" * 64

_LARGEST_HEADER = 32 * 2**20
"""The longest header that is read."""


@dataclass(frozen=True)
class _Head:
    """A header that is believed.

    Attributes:
        raw: The file's bytes before the tensors'.
        size: The file's bytes.
        data: The digest of the rest.
        about: What the writer said.
    """

    raw: bytes
    size: int
    data: str
    about: dict[str, Any]


def seal_entry(name: str, about: Mapping[str, Any], tensors: Sequence[Tensor], key: bytes) -> bytes:
    """Return the bytes of an entry with its name, `about` (JSON) and the key's seal."""
    header = json.dumps({"format": _FORMAT, "name": name, **about})
    raw = save(
        {str(number): tensor.cpu() for number, tensor in enumerate(tensors)},
        metadata={"about": header, "data": _BLANK, "digest": _BLANK},
    )
    begin = 8 + int.from_bytes(raw[:8], "little")
    data = raw[begin:]
    head = _filled(raw[:begin], "data", bytes_digest(data))
    return _filled(head, "digest", _seal(head, len(raw), key)) + data


def read_entry(file: BinaryIO, name: str, key: bytes) -> tuple[dict[str, Any], list[Tensor]]:
    """Return `(about, tensors)` of the entry of that name.

    Raises BrokenError unless every byte is as its owner wrote it, OSError if it cannot be read.
    """
    head = _head(file, name, key)
    data = file.read(head.size - len(head.raw))
    if bytes_digest(data) != head.data:
        raise BrokenError("its digest does not match")
    return head.about, load_spans(head.raw + data)


def read_head(file: BinaryIO, name: str, key: bytes) -> dict[str, Any]:
    """Return what the entry of that name says of itself; its tensors are not read.

    Raises BrokenError unless it is as its owner wrote it, OSError if it cannot be read.
    """
    return _head(file, name, key).about


def _head(file: BinaryIO, name: str, key: bytes) -> _Head:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if length > min(size, _LARGEST_HEADER):
        raise BrokenError(f"its header would have {length} bytes")
    raw = start + file.read(length)
    about, data, seal = _fields(raw)
    blank = raw.replace(_field("digest", seal), _field("digest", _BLANK), 1)
    if not hmac.compare_digest(seal, _seal(blank, size, key)):
        raise BrokenError("it is damaged, or not sealed with this user's key")
    if about.get("format") != _FORMAT or about.get("name") != name:
        raise BrokenError("it is of another format or another entry")
    return _Head(raw, size, data, about)


def _fields(raw: bytes) -> tuple[dict[str, Any], str, str]:
    """Return what a header says, the digest of the rest and the seal, before they are believed."""
    try:
        metadata = json.loads(raw[8:])["__metadata__"]
        about = json.loads(metadata["about"])
        data, seal = metadata["data"], metadata["digest"]
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as wrong:
        raise BrokenError("its header cannot be read") from wrong
    if not isinstance(about, dict) or not is_digest(data) or not is_digest(seal):
        raise BrokenError("its header is not ours")
    return about, data, seal


def _seal(head: bytes, size: int, key: bytes) -> str:
    """Return the seal of a header whose own is blank, and of the file's size."""
    length = size.to_bytes(8, "little")
    sealed = hashlib.blake2b(length, digest_size=32, key=key, person=b"seal of an entry")
    sealed.update(head)
    return sealed.hexdigest()


def _filled(head: bytes, name: str, value: str) -> bytes:
    return head.replace(_field(name, _BLANK), _field(name, value), 1)


def _field(name: str, value: str) -> bytes:
    """Return a field as it stands in the header; inside strings quotes are escaped."""
    return f'"{name}":"{value}"'.encode()

"""Sealed files: safetensors files whose header says what they are and holds their own digest.

Safetensors notices a truncated file, but not a flipped bit; the digest of all bytes, itself taken
as zeros, notices both. That finds damage, not forgery: entries of the cache have a seal (entry.py).
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import hexdigits
from typing import Any, TypeAlias

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..errors import OutputError
from ..system.files import writable, write_whole
from ..system.incoming import first_line, read_bounded, told_as
from ..system.packages import version_of
from .digest import bytes_digest
from .structure import StructureError, flatten, kinds_of, rebuild

__all__ = [
    "LARGEST_BYTES",
    "BrokenError",
    "Json",
    "LayoutError",
    "Sealed",
    "is_digest",
    "load_spans",
    "read_sealed",
    "seal",
    "unseal",
    "write_sealed",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_FORMAT = "dragnoise 2"
"""The container: the header's fields and how the digest is made."""

LARGEST_BYTES = 8 * 2**30
"""The longest file that is written or read: it is read as a whole."""

_LARGEST_HEADER = 32 * 2**20
"""The longest header: JSON takes some ten times its length in memory."""

_BLANK = "0" * 64
_CPU = torch.device("cpu")


class BrokenError(ValueError):
    """A file that cannot be read, is damaged, or is not the one that was expected."""


class LayoutError(BrokenError):
    """A file of an older or a newer layout; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Sealed:
    """The contents of a sealed file.

    Attributes:
        about: What the writer said about the value, as JSON.
        value: The value, its tensors on the device that the reader asked for.
    """

    about: Mapping[str, Any]
    value: Any


def write_sealed(
    path: str | os.PathLike[str],
    name: str,
    about: Mapping[str, Json],
    value: Any,
    kinds: Sequence[type] = (),
    *,
    version: int = 1,
) -> Path:
    """Write a value to a sealed file, whole or not at all, and return its path.

    The file is its owner's alone (mode 0600): pictures and prompts stand in it in clear.

    Args:
        path: The file; it ends in `.safetensors`.
        name: What sort of file it is; a reader that expects another sort refuses it.
        about: What the reader wants to know beside the value.
        value: Tuples, tensors, plain numbers and strings, and values of `kinds`.
        kinds: Dataclasses and NamedTuples in the value that are not `storable`.
        version: Number of the layout of `about` and `value`; raise it when either changes.

    Raises:
        OutputError: The file cannot be written there.
        TypeError: The value has a part of another kind.
    """
    target = writable(path, (".safetensors",))
    structure, tensors = flatten(value, kinds_of(kinds))
    header = {
        "version": version,
        "release": version_of("dragnoise"),
        "structure": structure,
        "about": about,
    }
    raw = seal(name, header, tensors)
    if len(raw) > LARGEST_BYTES:
        raise OutputError(
            f"{str(path)!r} would have {len(raw)} bytes, and {LARGEST_BYTES} are read again; "
            "keep less to undo (undo_bytes)"
        )
    return write_whole(target, lambda part: part.write_bytes(raw), mode=0o600)


def read_sealed(
    path: str | os.PathLike[str],
    name: str,
    kinds: Sequence[type] = (),
    *,
    version: int = 1,
    device: torch.device = _CPU,
) -> Sealed:
    """Read what `write_sealed` wrote.

    Args:
        path: The file.
        name: The sort of file that is expected.
        kinds: Dataclasses and NamedTuples that the value may consist of, beside `storable` ones.
        version: The layout that the caller reads.
        device: Where the value's tensors shall lie.

    Raises:
        LayoutError: The file was written by an older or a newer release.
        BrokenError: The file is missing, damaged or of another sort.
    """
    raw = read_bounded(path, BrokenError, LARGEST_BYTES)
    _check_layout(raw, name, version)  # before its digest: another layout may have another one
    header, tensors = unseal(raw, name)
    placed = [tensor.to(device) for tensor in tensors]
    try:
        about = header["about"]
        if not isinstance(about, dict):
            raise BrokenError(f"what it says of itself is a {type(about).__name__}")
        # No two tensors of a value that was written share memory, nor has one an expanded axis.
        held = sum(len(span) for span in tensors)
        value = rebuild(header["structure"], placed, kinds_of(kinds), at_most=held)
    except (StructureError, KeyError) as wrong:
        raise BrokenError(f"its contents are not what was written: {first_line(wrong)}") from wrong
    return Sealed(about, value)


def _check_layout(raw: bytes, name: str, version: int) -> None:
    """Raise BrokenError for a file of another sort, or one that an older or newer release wrote."""
    about, _ = _header(raw)
    _check_name(about, name)
    written = about.get("version")
    if type(written) is not int:
        raise BrokenError("it does not say of which layout it is")
    if written == version:
        return
    release = about.get("release")
    writer = f"dragnoise {release[:20]!r}" if isinstance(release, str) else "another release"
    advice = "update dragnoise to read it" if written > version else f"read it with {writer}"
    raise LayoutError(
        f"it was written by {writer}: its layout is {written}, this release reads {version}; "
        f"{advice}"
    )


def seal(name: str, about: Mapping[str, Any], tensors: Sequence[Tensor]) -> bytes:
    """Return the bytes of a safetensors file with its name, `about` (JSON) and its own digest."""
    header = json.dumps({"format": _FORMAT, "name": name, "written": time.time(), **about})
    raw = save(
        {str(number): tensor.cpu() for number, tensor in enumerate(tensors)},
        metadata={"about": header, "digest": _BLANK},
    )
    return raw.replace(_field(_BLANK), _field(bytes_digest(raw)), 1)


def unseal(raw: bytes, name: str) -> tuple[dict[str, Any], list[Tensor]]:
    """Return `(about, tensors)` of a file of that name.

    Raises BrokenError unless every byte is as it was written.
    """
    about, digest = _header(raw)
    _check_name(about, name)
    if bytes_digest(raw.replace(_field(digest), _field(_BLANK), 1)) != digest:
        raise BrokenError("its digest does not match")
    return about, load_spans(raw)


def load_spans(raw: bytes) -> list[Tensor]:
    """Return the tensors of a file, which are named by their numbers. Raises BrokenError."""
    with told_as(BrokenError, "its tensors cannot be read"):
        spans = load(raw)
        # Cloned, so that every one is aligned as PyTorch aligns its own allocations.
        return [spans.pop(str(number)).clone() for number in range(len(spans))]


def is_digest(field: object) -> bool:
    """Whether something that was read looks like a digest."""
    return isinstance(field, str) and len(field) == len(_BLANK) and set(field) <= set(hexdigits)


def _header(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return what the header says, and the digest."""
    length = int.from_bytes(raw[:8], "little")
    if length > _LARGEST_HEADER:
        raise BrokenError(f"its header would have {length} bytes")
    try:
        metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
        about = json.loads(metadata["about"])
        digest = metadata["digest"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as wrong:
        raise BrokenError("its header cannot be read") from wrong
    if not isinstance(about, dict) or not is_digest(digest):
        raise BrokenError("its header is not ours")
    return about, digest


def _check_name(about: Mapping[str, Any], name: str) -> None:
    if about.get("format") != _FORMAT or about.get("name") != name:
        raise BrokenError("it is of another format or another entry")


def _field(digest: str) -> bytes:
    """Return the digest as it stands in the header; inside strings quotes are escaped."""
    return f'"digest":"{digest}"'.encode()

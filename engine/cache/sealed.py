"""Sealed files: safetensors files whose header says what they are and holds their own digest.

Safetensors notices a truncated file, but not a flipped bit; the digest of all bytes, itself taken
as zeros, notices both. The cache's entries are sealed (`seal`, `unseal`), and so is every file in
which a value is saved for later (`write_sealed`, `read_sealed`).
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from ..system.files import writable, write_whole
from .digest import bytes_digest
from .structure import StructureError, flatten, kinds_of, rebuild

__all__ = [
    "BrokenError",
    "Json",
    "Sealed",
    "read_about",
    "read_sealed",
    "seal",
    "unseal",
    "write_sealed",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_FORMAT = "dragnoise 2"
"""The container: the header's fields and how the digest is made."""

_BLANK = "0" * 64
_CPU = torch.device("cpu")


class BrokenError(ValueError):
    """A file that cannot be read, is damaged, or is not the one that was expected."""


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
    header = {"version": version, "structure": structure, "about": about}
    raw = seal(name, header, tensors)
    return write_whole(target, lambda part: part.write_bytes(raw))


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
        BrokenError: The file is missing, damaged, of another sort or of another release.
    """
    try:
        header, tensors = unseal(Path(path).read_bytes(), name)
    except OSError as refused:
        raise BrokenError(str(refused)) from refused
    if header.get("version") != version:
        raise BrokenError(
            f"it was written by another release: its layout is {header.get('version')}, "
            f"this release reads {version}"
        )
    placed = [tensor.to(device) for tensor in tensors]
    try:
        value = rebuild(header["structure"], placed, kinds_of(kinds))
        return Sealed(dict(header["about"]), value)
    except (StructureError, KeyError, TypeError, ValueError) as wrong:
        raise BrokenError(f"it was written by another release: {wrong}") from wrong


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
    if about.get("format") != _FORMAT or about.get("name") != name:
        raise BrokenError("it is of another format or another entry")
    if bytes_digest(raw.replace(_field(digest), _field(_BLANK), 1)) != digest:
        raise BrokenError("its digest does not match")
    try:
        spans = load(raw)
        # Cloned, so that every one is aligned as PyTorch aligns its own allocations.
        tensors = [spans.pop(str(number)).clone() for number in range(len(spans))]
    except (safetensors.SafetensorError, ValueError, KeyError) as wrong:
        raise BrokenError(str(wrong)) from wrong
    return about, tensors


def read_about(path: Path) -> dict[str, Any]:
    """Return what a sealed file's header says; its digest is not checked.

    Raises OSError, or BrokenError if the header cannot be read.
    """
    with path.open("rb") as file:
        length = file.read(8)
        most = os.fstat(file.fileno()).st_size
        raw = length + file.read(min(int.from_bytes(length, "little"), most))
    return _header(raw)[0]


def _header(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return what the header says, and the digest."""
    try:
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        about = json.loads(metadata["about"])
        digest = metadata["digest"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as wrong:
        raise BrokenError("its header cannot be read") from wrong
    if not isinstance(about, dict) or not isinstance(digest, str) or len(digest) != len(_BLANK):
        raise BrokenError("its header is not ours")
    return about, digest


def _field(digest: str) -> bytes:
    """Return the digest as it stands in the header; inside strings quotes are escaped."""
    return f'"digest":"{digest}"'.encode()

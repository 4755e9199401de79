"""Read weights' files: first what their headers say, then each tensor when it is wanted.

Tensors are read out of the file, never mapped into memory: when it is written again, or cut short,
after loading, what was loaded stays what it was. (A map would end the process with SIGBUS, or give
other weights.) The layout of safetensors: 8 bytes, little-endian, the length of the header; the
header, JSON; the tensors, without a gap.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import torch
from torch import Tensor

from ...errors import ModelError
from ...system.incoming import open_regular, told_as

__all__ = ["PICKLES", "SAFE", "Stored", "StoredTensor", "open_weights"]

SAFE = ".safetensors"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
"""Endings of files that can run code."""

_HEADER_BYTES = 2**24
"""The longest header that is read; Stable Diffusion's U-Net has one of 80 kB."""

_KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: Its shape.
        dtype: Its type, as it is stored.
        read: Returns it, in memory of its own.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


Stored: TypeAlias = Mapping[str, StoredTensor]


@contextmanager
def open_weights(files: Sequence[Path]) -> Iterator[Stored]:
    """Open files of weights; what they hold, by name, can be read until they are closed.

    Pickles are unpickled at once, without code (`weights_only`): ask for leave before.

    Raises:
        ModelError: For a file that is missing, broken, cut short, or no regular one.
    """
    with ExitStack() as open_files:
        stored: dict[str, StoredTensor] = {}
        for path in files:
            file = open_files.enter_context(open_regular(path, ModelError))
            read = _unpickled if path.suffix.lower() in PICKLES else _header
            with told_as(ModelError, f"{str(path)!r} could not be loaded"):
                stored |= read(file)
        yield stored


def _header(file: BinaryIO) -> dict[str, StoredTensor]:
    """Return what a safetensors file says that it holds, if that is what it has room for."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _HEADER_BYTES):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    data = 8 + length
    stored, end = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        dtype = _KINDS.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"{name!r} is of type {entry['dtype']!r}, which is not read here")
        shape = tuple(entry["shape"])
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"{name!r} has shape {shape}")
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        if entry["data_offsets"] != [begin, end]:
            raise ValueError(f"{name!r} lies at {entry['data_offsets']}, not at {[begin, end]}")
        read = partial(_read, file, data + begin, end - begin, dtype, shape)
        stored[name] = StoredTensor(shape, dtype, read)
    if data + end != size:
        raise ValueError(f"it has {size} bytes, its header tells of {data + end}")
    return stored


def _read(
    file: BinaryIO, start: int, count: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    content = torch.empty(count, dtype=torch.uint8, device="cpu")
    file.seek(start)
    if cast(BufferedReader, file).readinto(content.numpy().data) != count:
        raise ModelError(f"{file.name!r} became shorter while it was read; load it again")
    return content.view(dtype).reshape(shape)


def _unpickled(file: BinaryIO) -> dict[str, StoredTensor]:
    content: Any = torch.load(file, map_location="cpu", weights_only=True)
    while isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, partial(_itself, tensor))
        for name, tensor in tensors.items()
    }


def _itself(tensor: Tensor) -> Tensor:
    return tensor

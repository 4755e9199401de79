"""Content as a key: the same digest for the same values, whatever they are called and wherever they lie.

Tensors and arrays count with their numbers, dtype and shape, not with their memory order. A thing may say its own digest (`Digested`); functions of
the engine are known by name, because their code is part of `surroundings`.
"""

import ast
import dataclasses
import hashlib
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dragnoise.kernels import has_triton as kernels

from ..system.cpu import cpu_flags, cpu_name
from ..system.packages import version_of

__all__ = [
    "Digested",
    "UndigestedError",
    "bytes_digest",
    "code_digest",
    "digest",
    "environment_digest",
    "file_digest",
]

_OURS = ("dragnoise.engine.", "dragnoise.kernels.")
_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "triton",
    "xformers",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx_cu13_bindings",
)


@runtime_checkable
class Digested(Protocol):
    """What knows a digest of itself."""

    @property
    def digest(self) -> str: ...


class UndigestedError(TypeError):
    """A value whose content cannot be told: what is made of it is not kept."""


def digest(*things: Any) -> str:
    """64 hexadecimal digits (BLAKE2b, 256 bits). Raises UndigestedError for a kind that is not known here, such as a function of one's own."""
    found = hashlib.blake2b(digest_size=32)
    for part in _parts(things):
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def bytes_digest(raw: bytes | memoryview) -> str:
    """Digest bytes as they are: 64 hexadecimal digits (BLAKE2b, 256 bits)."""
    return hashlib.blake2b(raw, digest_size=32).hexdigest()


def file_digest(*paths: Path) -> str:
    """Digest the bytes of files one after the other, as `bytes_digest` does, piece by piece."""
    found = hashlib.blake2b(digest_size=32)
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(2**24):
                found.update(piece)
    return found.hexdigest()


def _parts(thing: Any) -> Iterable[bytes | memoryview]:
    """Every kind begins with its name, so that values of different kinds never look alike."""
    if isinstance(thing, Tensor):
        yield f"tensor {thing.dtype} {tuple(thing.shape)}".encode()
        yield _bytes_of(thing)
    elif isinstance(thing, np.ndarray):
        yield f"array {thing.dtype} {thing.shape}".encode()
        yield np.ascontiguousarray(thing).tobytes()
    elif thing is None or isinstance(thing, (bool, int, float, str, bytes)):
        yield f"{type(thing).__name__} {thing!r}".encode()
    elif isinstance(thing, (torch.dtype, torch.device, torch.memory_format)):
        yield str(thing).encode()
    elif isinstance(thing, Digested):
        yield f"{type(thing).__qualname__} {thing.digest}".encode()
    elif isinstance(thing, (tuple, list)):
        yield f"{type(thing).__name__} {len(thing)}".encode()
        for item in thing:
            yield from _parts(item)
    elif isinstance(thing, Mapping):
        yield f"mapping {len(thing)}".encode()
        for name in sorted(thing, key=repr):
            yield from _parts((name, thing[name]))
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield f"{type(thing).__qualname__}".encode()
        yield from _parts(
            {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        )
    elif (
        isinstance(thing, FunctionType)
        and thing.__module__.startswith(_OURS)
        and "<" not in thing.__qualname__
    ):
        yield f"{thing.__module__}.{thing.__qualname__}".encode()
    else:
        raise UndigestedError(f"{type(thing).__qualname__} has no digest")


def _bytes_of(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(plain.view(torch.uint8).numpy().data) if plain.numel() else memoryview(b"")


def environment_digest(device: torch.device) -> str:
    """The digest of what decides bits beside the inputs: our code, the libraries, the device, threads and precision switches."""
    where: tuple[Any, ...] = (
        cpu_name(),
        tuple(sorted(cpu_flags())),
        torch.backends.cpu.get_cpu_capability(),
    )
    if device.type == "cuda":
        where += (
            torch.cuda.get_device_name(device),
            torch.cuda.get_device_capability(device),
            torch.version.cuda,
        )
    return digest(
        _code(),
        _versions(),
        platform.python_implementation(),
        device.type,
        where,
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.is_available(),
        torch.are_deterministic_algorithms_enabled(),
    )


@cache
def _code() -> str:
    """Digest every source and library file of the engine and its kernels: changed code changes every key."""
    rooms = Path(__file__).parents[1], Path(str(kernels.__file__)).parent
    return code_digest(
        path
        for room in rooms
        for path in room.rglob("*")
        if path.suffix in (".py", ".so", ".pyd") and path.is_file()
    )


def code_digest(files: Iterable[Path]) -> str:
    """Digest what files of code compute: of Python the syntax tree without docstrings, so that prose can be mended freely."""
    return digest([(path.name, _meaning(path)) for path in sorted(files)])


def _meaning(path: Path) -> bytes:
    if path.suffix != ".py":
        return path.read_bytes()
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_prose(part)]  # type: ignore[attr-defined]
    return ast.dump(tree).encode()


def _is_prose(statement: ast.AST) -> bool:
    """Whether a statement is a string alone: a docstring, or what documents an attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@cache
def _versions() -> tuple[str, ...]:
    return tuple(f"{package} {version_of(package)}" for package in _PACKAGES)

"""Content as a key: equal values have the same digest, whatever they are called, wherever they lie.

Tensors and arrays count with their numbers, dtype and shape, not with their memory order. A thing
may know its own digest (`Digested`), and a caller may know keys of values it has seen (`known`).
Functions of the engine are told by their name, because their code is part of
`environment_digest`.
"""

import ast
import dataclasses
import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dragnoise.kernels import has_triton as kernels
from dragnoise.kernels.has_native import has_native

from ..system.cpu import cpu_flags, cpu_name
from ..system.packages import COMPUTING, versions
from .switches import switches

__all__ = [
    "Digested",
    "Known",
    "UndigestedError",
    "bytes_digest",
    "code_digest",
    "digest",
    "environment_digest",
    "file_digest",
    "native_digest",
]

Known: TypeAlias = Callable[[object], str | None]
"""Returns the key of a value that need not be read, or None."""

_OURS = ("dragnoise.engine.", "dragnoise.kernels.")

_NATIVE = "dragnoise.kernels._native"


@runtime_checkable
class Digested(Protocol):
    """A thing that knows the digest of its own content."""

    @property
    def digest(self) -> str: ...


class UndigestedError(TypeError):
    """A value whose content cannot be told, so that nothing made from it can be kept."""


def digest(*things: Any, known: Known | None = None) -> str:
    """Digest values by their content.

    Args:
        things: Numbers, strings, tensors, arrays, functions of the engine, things with a `digest`,
            and tuples, lists, mappings and dataclasses of these.
        known: Asked for every value before it is taken apart, at every depth, except None, bool,
            int, float, str and bytes. A key that it returns stands for the value.

    Returns:
        64 hexadecimal digits (BLAKE2b, 256 bits).

    Raises:
        UndigestedError: A value is of another kind, such as a function of the caller's own.
    """
    result = hashlib.blake2b(digest_size=32)
    for piece in _pieces(things, known or _nothing_known):
        result.update(len(piece).to_bytes(8, "little"))
        result.update(piece)
    return result.hexdigest()


def bytes_digest(raw: bytes | memoryview) -> str:
    """Digest bytes as they are: 64 hexadecimal digits (BLAKE2b, 256 bits)."""
    return hashlib.blake2b(raw, digest_size=32).hexdigest()


def file_digest(*paths: Path) -> str:
    """Digest the bytes of files one after the other, as `bytes_digest` does, piece by piece."""
    result = hashlib.blake2b(digest_size=32)
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(2**24):
                result.update(piece)
    return result.hexdigest()


def _nothing_known(thing: object) -> None:
    return None


def _pieces(thing: Any, known: Known) -> Iterator[bytes | memoryview]:
    """Yield a value's content. Every kind begins with its name, so that no two look alike."""
    if thing is None or isinstance(thing, (bool, int, float, str, bytes)):
        yield f"{type(thing).__name__} {thing!r}".encode()
    elif (key := known(thing)) is not None:
        yield f"known {key}".encode()
    elif isinstance(thing, (Tensor, np.ndarray)):
        yield from _numbers(thing)
    elif isinstance(thing, (torch.dtype, torch.device, torch.memory_format)):
        yield str(thing).encode()
    elif isinstance(thing, Digested):
        yield f"{type(thing).__qualname__} {thing.digest}".encode()
    elif isinstance(thing, (tuple, list)):
        yield f"{type(thing).__name__} {len(thing)}".encode()
        for item in thing:
            yield from _pieces(item, known)
    elif isinstance(thing, Mapping):
        yield f"mapping {len(thing)}".encode()
        for name in sorted(thing, key=repr):
            yield from _pieces(name, known)
            yield from _pieces(thing[name], known)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield f"{type(thing).__qualname__}".encode()
        fields = dataclasses.fields(thing)
        yield from _pieces({field.name: getattr(thing, field.name) for field in fields}, known)
    elif isinstance(thing, (FunctionType, type)) and _is_ours(thing):
        yield f"{thing.__module__}.{thing.__qualname__}".encode()
    else:
        raise UndigestedError(f"{type(thing).__qualname__} has no digest")


def _numbers(thing: Any) -> Iterator[bytes | memoryview]:
    if not isinstance(thing, Tensor):
        yield f"array {thing.dtype} {thing.shape}".encode()
        yield np.ascontiguousarray(thing).tobytes()
        return
    yield f"tensor {thing.dtype} {tuple(thing.shape)}".encode()
    plain = thing.detach().cpu().contiguous().reshape(-1)
    yield memoryview(plain.view(torch.uint8).numpy().data) if plain.numel() else b""


def _is_ours(function: FunctionType | type) -> bool:
    """Whether the code of a function or class is told by its name: ours, and not local."""
    return function.__module__.startswith(_OURS) and "<" not in function.__qualname__


def environment_digest(device: torch.device) -> str:
    """Digest what decides bits beside the inputs.

    That is our code, the libraries, the device, the number of threads, and every switch of the
    process: variables that the libraries read, PyTorch's settings, the calling thread's modes.
    """
    return digest(_lasting(device), switches(device))


@cache
def _lasting(device: torch.device) -> str:
    """Digest what stays as it is while the process lives."""
    machine: tuple[Any, ...] = (
        cpu_name(),
        tuple(sorted(cpu_flags())),
        torch.backends.cpu.get_cpu_capability(),
    )
    if device.type == "cuda":
        machine += (
            torch.cuda.get_device_name(device),
            torch.cuda.get_device_capability(device),
            torch.version.cuda,
        )
    return digest(
        _our_code(),
        native_digest(),
        versions(COMPUTING),
        torch.__config__.show(),  # not every build of a version has one BLAS
        platform.python_implementation(),
        device.type,
        machine,
    )


def _our_code() -> str:
    """Digest every source file of the engine and its kernels."""
    rooms = (Path(__file__).parents[1], Path(str(kernels.__file__)).parent)
    return code_digest(path for room in rooms for path in room.rglob("*.py") if path.is_file())


def native_digest() -> str | None:
    """Digest the file of the native kernels as this process runs them; None if it runs without.

    An editable install keeps it apart from the kernels' sources.
    """
    if not has_native():
        return None
    return file_digest(Path(str(import_module(_NATIVE).__file__)))


def code_digest(files: Iterable[Path]) -> str:
    """Digest what files of code compute.

    Of Python that is the syntax tree without docstrings, so that prose can be mended freely.
    """
    return digest([(path.name, _meaning(path)) for path in sorted(files)])


def _meaning(path: Path) -> bytes:
    if path.suffix != ".py":
        return path.read_bytes()
    words: list[str] = []
    _spell(ast.parse(path.read_bytes()), words)
    return "\n".join(words).encode()


def _spell(node: ast.AST, words: list[str]) -> None:
    """Append a syntax tree's words in order, without prose, positions and empty fields.

    `ast.dump` is several times slower, and what it writes differs between versions of Python.
    """
    words.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == []:
            continue
        words.append(name)
        for part in value if isinstance(value, list) else (value,):
            if not isinstance(part, ast.AST):
                words.append(repr(part))
            elif not _is_prose(part):
                _spell(part, words)
    words.append(";")


def _is_prose(node: ast.AST) -> bool:
    """Whether a node is a statement of a string alone: a docstring, or one of an attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )

"""Values as a structure in JSON and a list of spans of memory, and back.

A value is a nest of tuples, storable dataclasses and NamedTuples, tensors, None, bool, int, float
and str. Nothing else is taken, and nothing else is ever built: a file can only name kinds that the
reader knows, and a structure that names others, or is damaged, raises StructureError.
"""

import dataclasses
import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..system.incoming import first_line

__all__ = [
    "Kinds",
    "StructureError",
    "flatten",
    "kinds_of",
    "moved",
    "nbytes",
    "rebuild",
    "storable",
]

T = TypeVar("T")

Kinds: TypeAlias = Mapping[str, type]
"""Kinds that a value may consist of, by the qualified name that a structure knows them by."""

_STORABLE: dict[str, type] = {}
"""Written by `storable` while modules are imported, and only read afterwards."""

_ALIGNED = 64
"""Bytes to which PyTorch aligns its allocations on a CPU."""


class StructureError(ValueError):
    """A structure that names an unknown kind, or that no value can be built from."""


def storable(kind: type[T]) -> type[T]:
    """Register a frozen dataclass or a NamedTuple as a kind that values may consist of.

    A class decorator. Raises TypeError for a class of another sort, or if a class of another
    module has the same qualified name.
    """
    if not (_is_frozen(kind) or _is_named_tuple(kind)):
        raise TypeError(f"{kind.__qualname__} cannot be stored; make it a frozen dataclass")
    known = _STORABLE.get(kind.__qualname__, kind)
    if known.__module__ != kind.__module__:  # the same module may be loaded again
        raise TypeError(_clash(known, kind))
    _STORABLE[kind.__qualname__] = kind
    return kind


def kinds_of(kinds: Iterable[type] = ()) -> Kinds:
    """Return these kinds by name, with every `storable` one, also those registered later.

    Raises TypeError if two different kinds have the same name.
    """
    own: dict[str, type] = {}
    known = ChainMap(own, _STORABLE)
    for kind in kinds:
        if known.get(kind.__qualname__, kind) is not kind:
            raise TypeError(_clash(known[kind.__qualname__], kind))
        own[kind.__qualname__] = kind
    return known


def flatten(value: Any, kinds: Kinds) -> tuple[Any, list[Tensor]]:
    """Return `(structure, spans)` of a value; `rebuild` is the way back.

    A span is uint8 [bytes]: the part of one storage that the value's tensors reach. Strides, gaps,
    expanded axes, views of one another and every dtype come back as they were; gradients do not.
    Raises TypeError for anything that is not a value of these kinds.
    """
    spans = _spans(_tensors(value))

    def take(part: Any) -> Any:
        if isinstance(part, Tensor):
            number, begin, _ = spans[_storage(part)]
            offset = part.storage_offset() - begin // part.element_size()
            layout = [number, str(part.dtype), list(part.shape), list(part.stride()), offset]
            return {"tensor": layout}
        if part is None or type(part) in (bool, int, float, str):
            return {"value": part}
        name = type(part).__qualname__
        fields = _fields(part)
        if fields is not None and kinds.get(name) is type(part):
            return {"kind": name, "fields": {key: take(item) for key, item in fields.items()}}
        if type(part) is tuple:
            return {"tuple": [take(item) for item in part]}
        raise TypeError(f"{name} is no kind that can be kept; known: {', '.join(kinds) or 'none'}")

    return take(value), [span for _, _, span in spans.values()]


def rebuild(
    structure: Any, spans: Sequence[Tensor], kinds: Kinds, *, at_most: float = math.inf
) -> Any:
    """Return the value that `flatten` took apart.

    Args:
        structure: Of the value.
        spans: Its memory.
        kinds: Of which it may consist.
        at_most: Bytes that its different tensors may have together. An expanded axis costs nothing
            here, and everything in the copy that somebody makes of it.

    Raises:
        StructureError: Where there is no such value.
    """
    tensors: dict[str, Tensor] = {}
    room = at_most

    def tensor(number: int, name: str, size: list[int], stride: list[int], offset: int) -> Tensor:
        nonlocal room
        span = _typed(spans[number], name)
        room -= math.prod(size) * span.element_size()
        if room < 0:
            raise StructureError(f"its tensors have more than {at_most} bytes")
        return span.as_strided(size, stride, offset)

    def put(part: Any) -> Any:
        if "tensor" in part:
            layout = str(part["tensor"])
            if layout not in tensors:
                tensors[layout] = tensor(*part["tensor"])
            return tensors[layout]
        if "value" in part:
            return _plain(part["value"])
        if "tuple" in part:
            return tuple(put(item) for item in part["tuple"])
        return kinds[part["kind"]](**{name: put(item) for name, item in part["fields"].items()})

    try:
        return put(structure)
    except StructureError:
        raise
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,  # a number that is too large
        RuntimeError,  # of PyTorch, and RecursionError
    ) as wrong:
        reason = f"{type(wrong).__name__}: {first_line(wrong)}"
        raise StructureError(f"no value can be built from it ({reason})") from wrong


def moved(value: Any, kinds: Kinds, move: Callable[[Tensor], Tensor]) -> Any:
    """Return the value with its spans moved; strides stay, and what its tensors share."""
    structure, spans = flatten(value, kinds)
    return rebuild(structure, [move(span) for span in spans], kinds)


def nbytes(value: Any) -> int:
    """Return the bytes of memory that a value's tensors keep; a storage with many views once."""
    storages = {_storage(part): part.untyped_storage() for part in _tensors(value)}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    members = value if isinstance(value, tuple) else (_fields(value) or {}).values()
    for member in members:
        yield from _tensors(member)


def _fields(part: Any) -> dict[str, Any] | None:
    """Return the members of a dataclass or a NamedTuple by name, of anything else None."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    if isinstance(part, tuple) and _is_named_tuple(type(part)):
        return part._asdict()  # type: ignore[attr-defined, no-any-return]
    return None


def _is_frozen(kind: type) -> bool:
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_asdict")


def _clash(known: type, kind: type) -> str:
    return (
        f"{kind.__module__}.{kind.__qualname__} has the name of another kind of values, that of "
        f"{known.__module__}; rename one of them"
    )


def _spans(tensors: Iterable[Tensor]) -> dict[int, tuple[int, int, Tensor]]:
    """Return `(number, first byte, span)` by storage.

    A span begins at a whole multiple of an allocation's alignment, because the order in which
    PyTorch sums depends on it.
    """
    reached: dict[int, tuple[int, int, Tensor]] = {}
    for tensor in tensors:
        begin, end = _reach(tensor)
        first, last, furthest = reached.get(_storage(tensor), (begin, end, tensor))
        if end > last:
            furthest = tensor
        reached[_storage(tensor)] = (min(begin, first), max(end, last), furthest)
    spans = {}
    for number, (storage, (begin, end, tensor)) in enumerate(reached.items()):
        aligned = begin // _ALIGNED * _ALIGNED
        spans[storage] = (number, aligned, _bytes(tensor, aligned, end))
    return spans


def _reach(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of its storage that a tensor has, and the one after its last."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    if not plain or tensor.is_conj() or tensor.is_neg():
        raise TypeError(
            f"a tensor of layout {tensor.layout}, quantized or lazily conjugated cannot be kept"
        )
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if not tensor.numel():
        return begin, begin
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in steps)
    return begin, begin + (int(last) + 1) * tensor.element_size()


def _bytes(tensor: Tensor, begin: int, end: int) -> Tensor:
    """Return these bytes of the tensor's storage, without a copy."""
    whole = torch.tensor([], dtype=torch.uint8, device=tensor.device)
    span: Tensor = whole.set_(tensor.untyped_storage(), begin, (end - begin,), (1,))
    return span


def _plain(part: Any) -> Any:
    """Return a number, a text or None as it is."""
    if part is not None and type(part) not in (bool, int, float, str):
        raise StructureError(f"no value can be built from a {type(part).__name__}")
    return part


def _typed(span: Tensor, name: str) -> Tensor:
    dtype = getattr(torch, name.removeprefix("torch."))
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is no dtype")
    return span[: len(span) // dtype.itemsize * dtype.itemsize].view(dtype)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

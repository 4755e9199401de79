"""Values as a structure in JSON and a list of tensors, and back.

A value is a nest of tuples, dataclasses and NamedTuples of known kinds, tensors, None, bool, int, float and str. Nothing else is taken, and nothing
else is ever built: a file can only name kinds that the reader knows.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Kinds", "kinds_of", "moved", "nbytes", "put_together", "taken_apart"]

Kinds = Mapping[str, type]


def kinds_of(kinds: Sequence[type]) -> Kinds:
    """By the name that a structure knows them by."""
    return {kind.__qualname__: kind for kind in kinds}


def taken_apart(value: Any, kinds: Kinds) -> tuple[Any, list[Tensor]]:
    """(structure, tensors). Every tensor flat, in the order of its memory where that has no gaps, else as if it were contiguous; one that occurs
    twice counts once. Raises TypeError for what is no value."""
    tensors: list[Tensor] = []
    numbers: dict[int, int] = {}

    def take(part: Any) -> Any:
        if isinstance(part, Tensor):
            if id(part) not in numbers:
                numbers[id(part)] = len(tensors)
                tensors.append(_flat(part))
            stride = part.stride() if _dense(part) else torch.empty(part.shape, device="meta").stride()
            return {"tensor": numbers[id(part)], "size": list(part.shape), "stride": list(stride)}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        fields = _fields(part)
        if fields is not None and kinds.get(type(part).__qualname__) is type(part):
            return {"kind": type(part).__qualname__, "fields": {name: take(item) for name, item in fields.items()}}
        if type(part) is tuple:
            return {"tuple": [take(item) for item in part]}
        raise TypeError(f"{type(part).__qualname__} is no kind that can be kept; known: {', '.join(kinds) or 'none'}")

    return take(value), tensors


def put_together(structure: Any, tensors: Sequence[Tensor], kinds: Kinds) -> Any:
    """The value again. Raises KeyError, ValueError, TypeError, IndexError, RuntimeError for a structure that is none."""
    built: dict[int, Tensor] = {}

    def put(part: Any) -> Any:
        if "tensor" in part:
            number = part["tensor"]
            if number not in built:
                built[number] = tensors[number].as_strided(part["size"], part["stride"])
            return built[number]
        if "value" in part:
            return part["value"]
        if "tuple" in part:
            return tuple(put(item) for item in part["tuple"])
        return kinds[part["kind"]](**{name: put(item) for name, item in part["fields"].items()})

    return put(structure)


def moved(value: Any, kinds: Kinds, move: Callable[[Tensor], Tensor]) -> Any:
    """The same value with its tensors elsewhere, in the same memory order."""
    structure, tensors = taken_apart(value, kinds)
    return put_together(structure, [move(tensor) for tensor in tensors], kinds)


def nbytes(value: Any) -> int:
    """Bytes of memory that its tensors keep: views of one storage count once."""
    storages: dict[int, int] = {}

    def count(part: Any) -> None:
        if isinstance(part, Tensor):
            storage = part.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, tuple):
            for item in part:
                count(item)
        else:
            for item in (_fields(part) or {}).values():
                count(item)

    count(value)
    return sum(storages.values())


def _fields(part: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return part._asdict() if isinstance(part, tuple) and hasattr(part, "_asdict") else None


def _flat(tensor: Tensor) -> Tensor:
    plain = tensor.detach()
    return plain.as_strided((plain.numel(),), (1,)) if _dense(plain) else plain.contiguous().view(-1)


def _dense(tensor: Tensor) -> bool:
    """Whether its elements fill their memory without gaps or overlaps, in whatever order of axes."""
    expected = 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1
    ):
        if stride != expected:
            return False
        expected *= size
    return tensor.numel() > 0

"""Values as a structure in JSON and a list of spans of memory, and back.

A value is a nest of tuples, dataclasses and NamedTuples of known kinds, tensors, None, bool, int, float and str. Nothing else is taken, and nothing
else is ever built: a file can only name kinds that the reader knows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Kinds", "flatten", "kinds_of", "moved", "nbytes", "rebuild"]

Kinds = Mapping[str, type]
_ALIGNED = 64
"""Bytes: of PyTorch's allocations on a CPU."""


def kinds_of(kinds: Sequence[type]) -> Kinds:
    """By the name that a structure knows them by."""
    return {kind.__qualname__: kind for kind in kinds}


def flatten(value: Any, kinds: Kinds) -> tuple[Any, list[Tensor]]:
    """(structure, spans). A span is uint8 [bytes]: what of one storage the value's tensors reach, so that strides, gaps, expanded axes, views of
    one another and every dtype come back as they were. Gradients do not. Raises TypeError for what is no value."""
    spans = _spans(_tensors(value))

    def take(part: Any) -> Any:
        if isinstance(part, Tensor):
            number, begin, _ = spans[_storage(part)]
            offset = part.storage_offset() - begin // part.element_size()
            return {
                "tensor": [number, str(part.dtype), list(part.shape), list(part.stride()), offset]
            }
        if part is None or type(part) in (bool, int, float, str):
            return {"value": part}
        fields = _fields(part)
        if fields is not None and kinds.get(type(part).__qualname__) is type(part):
            return {
                "kind": type(part).__qualname__,
                "fields": {name: take(item) for name, item in fields.items()},
            }
        if type(part) is tuple:
            return {"tuple": [take(item) for item in part]}
        raise TypeError(
            f"{type(part).__qualname__} is no kind that can be kept; known: {', '.join(kinds) or 'none'}"
        )

    return take(value), [span for _, _, span in spans.values()]


def rebuild(structure: Any, spans: Sequence[Tensor], kinds: Kinds) -> Any:
    """The value again. Raises KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError for a structure that is none."""
    built: dict[str, Tensor] = {}

    def put(part: Any) -> Any:
        if "tensor" in part:
            known = str(part["tensor"])
            if known not in built:
                number, dtype, size, stride, offset = part["tensor"]
                built[known] = _typed(spans[number], dtype).as_strided(size, stride, offset)
            return built[known]
        if "value" in part:
            return part["value"]
        if "tuple" in part:
            return tuple(put(item) for item in part["tuple"])
        return kinds[part["kind"]](**{name: put(item) for name, item in part["fields"].items()})

    return put(structure)


def moved(value: Any, kinds: Kinds, move: Callable[[Tensor], Tensor]) -> Any:
    """The same value with its spans elsewhere: strides and what its tensors share stay."""
    structure, spans = flatten(value, kinds)
    return rebuild(structure, [move(span) for span in spans], kinds)


def nbytes(value: Any) -> int:
    """Bytes of memory that its tensors keep: views of one storage count once."""
    return sum(
        {_storage(part): part.untyped_storage().nbytes() for part in _tensors(value)}.values()
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        members = value if isinstance(value, tuple) else (_fields(value) or {}).values()
        for member in members:
            yield from _tensors(member)


def _fields(part: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return part._asdict() if isinstance(part, tuple) and hasattr(part, "_asdict") else None


def _spans(tensors: Iterable[Tensor]) -> dict[int, tuple[int, int, Tensor]]:
    """By storage: (number, first byte, the span). Spans begin at whole multiples of an allocation's alignment: sums of sums depend on it."""
    reached: dict[int, tuple[int, int, Tensor]] = {}
    for tensor in tensors:
        if (
            tensor.layout != torch.strided
            or tensor.is_quantized
            or tensor.is_conj()
            or tensor.is_neg()
        ):
            raise TypeError(
                f"a tensor of layout {tensor.layout}, quantized or lazily conjugated cannot be kept"
            )
        first = int(tensor.storage_offset()) * tensor.element_size()
        last = sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        end = first + (int(last) + 1) * tensor.element_size() if tensor.numel() else first
        begin, until, furthest = reached.get(_storage(tensor), (first, end, tensor))
        reached[_storage(tensor)] = (
            min(begin, first),
            max(until, end),
            tensor if end > until else furthest,
        )
    return {
        storage: (
            number,
            begin // _ALIGNED * _ALIGNED,
            _bytes(tensor, begin // _ALIGNED * _ALIGNED, end),
        )
        for number, (storage, (begin, end, tensor)) in enumerate(reached.items())
    }


def _bytes(tensor: Tensor, begin: int, end: int) -> Tensor:
    """These bytes of the tensor's storage; no copy."""
    whole = torch.tensor([], dtype=torch.uint8, device=tensor.device)
    return whole.set_(tensor.untyped_storage(), begin, (end - begin,), (1,))  # type: ignore[no-untyped-call, no-any-return, unused-ignore]


def _typed(span: Tensor, dtype: str) -> Tensor:
    found = getattr(torch, dtype.removeprefix("torch."))
    if not isinstance(found, torch.dtype):
        raise TypeError(f"{dtype!r} is no dtype")
    return span[: len(span) // found.itemsize * found.itemsize].view(found)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

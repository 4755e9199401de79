"""Say what operators cost, change and answer, as far as PyTorch's own schemas do not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

__all__ = [
    "ANSWERS",
    "FLOPS",
    "PRODUCTS",
    "AsOnDevice",
    "Call",
    "Signature",
    "crossing",
    "host_copy",
    "is_composite",
]

aten = torch.ops.aten


class Call(NamedTuple):
    """A call of an operator.

    Attributes:
        operator: The overload that is called.
        args: Its arguments by place.
        kwargs: Its arguments by name.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument, by its place or by its name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any
) -> int:
    """Count the products of the gradients that are wanted.

    Each is as large as one of the forward pass's two: that of the weights of the average, then
    those of query, key and value.
    """
    needs_query, needs_key, needs_value, _needs_bias = rest[6]
    products = (needs_query or needs_key) + needs_query + needs_key + needs_value
    forward: int = sdpa_flop_count(query.shape, key.shape, value.shape)
    return int(products) * forward // 2


FLOPS: Mapping[Any, Callable[..., Any]] = {
    **flop_registry,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
}
"""FLOPs by operator, of its arguments and result; operators not in it have none worth counting."""

PRODUCTS = {aten.mm.default, aten.addmm.default}
"""Operators that compute the gradient of a linear map's weight."""

ANSWERS: Mapping[Any, Callable[[Tensor], Any]] = {
    aten._local_scalar_dense.default: lambda host: host.item(),
    aten.equal.default: lambda host: False,
    aten.nonzero.default: lambda host: host.new_zeros(
        (0, host.ndim), dtype=torch.int64, device="meta"
    ),
}
"""Operators that read a tensor on the meta device, for which the host waits.

Each answers from the values that the tensor would have on the host.
"""


@dataclass(frozen=True)
class Signature:
    """A summary of an operator's schema.

    Attributes:
        written: The arguments that it changes, by place and name.
        output_mask: The place of the mask that says which gradients are wanted: of the input, then
            of the weight and the bias. None if it has none.
        allocates: Whether it gives memory and writes none.
        overwrites: Whether it does not read what it changes.
        reads_nothing: Whether it looks at its input's shape only.
    """

    written: tuple[tuple[int, str], ...]
    output_mask: int | None
    allocates: bool
    overwrites: bool
    reads_nothing: bool

    @staticmethod
    @cache
    def of(operator: Any) -> "Signature":
        """Read the schema of an operator."""
        schema = operator._schema
        name = schema.name.removeprefix("aten::")
        arguments = list(enumerate(schema.arguments))
        masks = [place for place, argument in arguments if argument.name == "output_mask"]
        return Signature(
            written=tuple(
                (place, argument.name)
                for place, argument in arguments
                if argument.alias_info is not None and argument.alias_info.is_write
            ),
            output_mask=masks[0] if masks else None,
            allocates=name.startswith(("empty", "new_empty")),
            overwrites=name in ("copy_", "fill_", "zero_"),
            reads_nothing=name.endswith("_like") or name.startswith("new_"),
        )

    def changed(self, call: Call) -> list[Any]:
        """Return the arguments that a call changes."""
        return [call.argument(*where) for where in self.written]

    def wants_weight(self, call: Call) -> bool:
        """Tell whether a call computes the gradient of a layer's weight or bias."""
        return self.output_mask is not None and any(
            call.argument(self.output_mask, "output_mask")[1:]
        )


@cache
def is_composite(operator: Any) -> bool:
    """Tell whether an operator is only a name for others, on every device.

    What PyTorch decomposes in Python beside that, such as nearest upsampling, is one kernel on
    CUDA.
    """
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        operator.name(), "CompositeImplicitAutograd"
    )


def crossing(call: Call, kind: str) -> tuple[bool, bool]:
    """Tell whether a call copies between a device of a kind and another, and if the host waits."""
    if call.operator is aten._to_copy.default:
        origin = call.args[0].device
        target = torch.device(call.kwargs.get("device") or origin)
        waits = not call.kwargs.get("non_blocking", False)
    elif call.operator is aten.copy_.default:
        origin = call.args[1].device
        target = call.args[0].device
        waits = not call.argument(2, "non_blocking", False)
    else:
        return False, False
    crosses = origin.type != target.type and kind in (origin.type, target.type)
    return crosses, crosses and waits


def host_copy(call: Call, values: Tensor) -> Tensor:
    """Copy `values` to the host in place of a tensor on the meta device, which PyTorch refuses."""
    if call.operator is aten.copy_.default:
        target: Tensor = call.args[0]
        return target.copy_(values)
    return values.to(call.kwargs.get("dtype") or values.dtype, copy=True)


class AsOnDevice(TorchFunctionMode):
    """A mode that makes the meta device do what CUDA does above the dispatcher.

    Attention is one operator; tensors of Python numbers are made on the host and copied.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        device = torch.device(kwargs.get("device") or "cpu")
        if func in (torch.tensor, torch.as_tensor) and device.type == self._kind == "meta":
            return func(*args, **{**kwargs, "device": "cpu"}).to(device)
        if func is F.scaled_dot_product_attention and self._kind == "meta":
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
) -> Tensor:
    """Call PyTorch's memory-efficient operator, which takes every type, size and mask.

    Flash attention reads and writes the same.
    """
    bias = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
    trained = any(tensor.requires_grad for tensor in (query, key, value))
    saves = torch.is_grad_enabled() and trained
    attended: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, saves, **settings
    )[0]
    return attended

"""What single operators cost, change and answer, as far as PyTorch's own schemas do not say it."""

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
    """An operator and what it is given."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any
) -> int:
    """The gradient of the weights of the average, then of what is asked for: each a product as large as one of the forward pass's two."""
    needs_query, needs_key, needs_value, _needs_bias = rest[6]
    products = (needs_query or needs_key) + needs_query + needs_key + needs_value
    forward: int = sdpa_flop_count(query.shape, key.shape, value.shape)
    return int(products) * forward // 2


FLOPS: Mapping[Any, Callable[..., Any]] = {
    **flop_registry,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
}
"""Operator -> FLOPs of its arguments and result; what is missing has none worth counting."""

PRODUCTS = {aten.mm.default, aten.addmm.default}
"""What computes the gradient of a linear map's weight."""

ANSWERS: Mapping[Any, Callable[[Tensor], Any]] = {
    aten._local_scalar_dense.default: lambda host: host.item(),
    aten.equal.default: lambda host: False,
    aten.nonzero.default: lambda host: host.new_zeros(
        (0, host.ndim), dtype=torch.int64, device="meta"
    ),
}
"""What is read of a tensor on the meta device, which makes the host wait, of the values that it would have on the host."""


@dataclass(frozen=True)
class Signature:
    """What an operator's schema says of it.

    written: the arguments that it changes, by place and name. output_mask: the place of the mask that says which gradients are wanted (of the
    input, then of the weight and the bias). allocates: it gives memory and writes none. overwrites: what it changes it does not read.
    reads_nothing: it looks at its input's shape only.
    """

    written: tuple[tuple[int, str], ...]
    output_mask: int | None
    allocates: bool
    overwrites: bool
    reads_nothing: bool

    @staticmethod
    @cache
    def of(operator: Any) -> "Signature":
        schema, name = operator._schema, operator._schema.name.removeprefix("aten::")
        arguments = list(enumerate(schema.arguments))
        masks = [place for place, argument in arguments if argument.name == "output_mask"]
        return Signature(
            written=tuple(
                (i, a.name)
                for i, a in arguments
                if a.alias_info is not None and a.alias_info.is_write
            ),
            output_mask=masks[0] if masks else None,
            allocates=name.startswith(("empty", "new_empty")),
            overwrites=name in ("copy_", "fill_", "zero_"),
            reads_nothing=name.endswith("_like") or name.startswith("new_"),
        )

    def changed(self, call: Call) -> list[Any]:
        return [call.argument(*where) for where in self.written]

    def wants_weight(self, call: Call) -> bool:
        """Whether this computes a layer's gradients, a weight's or bias's among them."""
        return self.output_mask is not None and any(
            call.argument(self.output_mask, "output_mask")[1:]
        )


@cache
def is_composite(operator: Any) -> bool:
    """Whether it is only a name for other operators, on every device. (What PyTorch decomposes in Python beside that, such as nearest upsampling, is
    one kernel on CUDA.)"""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        operator.name(), "CompositeImplicitAutograd"
    )


def crossing(call: Call, kind: str) -> tuple[bool, bool]:
    """Whether this is a copy between a device of that kind and another, and whether the host waits for it."""
    if call.operator is aten._to_copy.default:
        here, there = (
            call.args[0].device,
            torch.device(call.kwargs.get("device") or call.args[0].device),
        )
        waits = not call.kwargs.get("non_blocking", False)
    elif call.operator is aten.copy_.default:
        here, there = call.args[1].device, call.args[0].device
        waits = not call.argument(2, "non_blocking", False)
    else:
        return False, False
    crosses = here.type != there.type and kind in (here.type, there.type)
    return crosses, crosses and waits


def host_copy(call: Call, values: Tensor) -> Tensor:
    """The copy of a tensor on the meta device to the host, which PyTorch refuses: `values`."""
    if call.operator is aten.copy_.default:
        target: Tensor = call.args[0]
        return target.copy_(values)
    return values.to(call.kwargs.get("dtype") or values.dtype, copy=True)


class AsOnDevice(TorchFunctionMode):
    """What happens on a CUDA device above the dispatcher, and on the meta device not: attention is one operator; what is made of Python numbers is
    made on the host and copied."""

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
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **how: Any
) -> Tensor:
    """PyTorch's memory-efficient operator, which takes every type, size and mask; what flash attention reads and writes is the same."""
    bias = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
    saves = torch.is_grad_enabled() and any(given.requires_grad for given in (query, key, value))
    attended: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, saves, **how
    )[0]
    return attended

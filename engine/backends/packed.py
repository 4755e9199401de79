"""Run frozen layers on a CPU with weights packed once for oneDNN, and maps in channels_last.

PyTorch's convolution hands oneDNN its weights as they lie, and oneDNN reorders them at every call,
which for small maps costs more than the sum itself (1280 x 1280 x 3 x 3 on an 8 x 8 map: 22 ms as
they lie, 7 ms packed; float32, two threads of a Xeon with AMX). Frozen weights are packed once. For
the gradient of a map, which is a convolution with the weights turned round, they are packed a
second time when the first gradient is wanted; what runs once a drag is packed for that one call.
bfloat16 linear maps are packed likewise; in float32 the matrix product reads plain weights as fast.
What is packed of a convolution for the forward pass stands for its plain weights, where nobody else
has these (diffusion/unet/held.py).

The packing operators are the ones that torch.compile uses when it freezes a network
(`torch.ops.mkldnn`); `objections_to` finds out whether they are here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import ConvWeight, Operators, UNet
from ..diffusion.unet.operators import Conv, Linear, Norm
from .attention import Attention
from .backend import Backend, Gates

__all__ = ["PACKED", "PACKED_OPERATORS", "objections_to"]

_NEEDED = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
_ALLOWED = 2e-2
"""Relative difference to a plain convolution that is still rounding, in bfloat16."""


def objections_to(device: torch.device, dtype: torch.dtype) -> list[str]:
    """List why packed weights cannot serve a device and dtype; empty if they can."""
    if device.type != "cpu":
        return [f"packed weights are the CPU's, the model is on {device}"]
    if not torch.backends.mkldnn.is_available():
        return ["this PyTorch was built without oneDNN"]
    missing = [name for name in _NEEDED if not hasattr(torch.ops.mkldnn, name)]
    if missing:
        return [f"this PyTorch has no torch.ops.mkldnn.{', '.join(missing)}"]
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ["this CPU has no bfloat16 instructions that oneDNN uses"]
    if dtype not in (torch.float32, torch.bfloat16):
        return [f"weights of {dtype} are not packed"]
    return _trial(dtype)


def _trial(dtype: torch.dtype) -> list[str]:
    """Try a small convolution: the operators may be here and refuse this processor."""
    ramp = torch.linspace(-1, 1, 128, dtype=torch.float32).view(1, 8, 4, 4)
    hidden = ramp.to(dtype, memory_format=torch.channels_last)
    weight = torch.linspace(-1, 1, 576, dtype=torch.float32).sin().view(8, 8, 3, 3).to(dtype)
    try:
        packed = _PackedConv(ConvWeight.of(weight), None, 1, 1)(hidden)
        unpacked = _pack(weight, 1, 1, hidden.shape).to_dense()
    except RuntimeError as refused:
        return [f"oneDNN refuses packed weights of {dtype} here: {str(refused).splitlines()[0]}"]
    plain = Conv(weight, None, 1, 1)(hidden)
    error = float((packed - plain).abs().max() / plain.abs().max())
    if error >= _ALLOWED:
        return [f"oneDNN is {error:.1e} off with packed weights of {dtype} here"]
    if not torch.equal(unpacked, weight):
        return [f"oneDNN does not give back the weights of {dtype} that it packed here"]
    return []


@dataclass(eq=False)
class _PackedConv:
    """A convolution whose weights are packed for each direction when that first runs.

    They are packed again if they have changed since.

    Attributes:
        weight: Where its weights are, plain or packed.
        bias: [O] or None.
        stride: In both directions.
        padding: On every side.
        kept: Whether what is packed is kept for the next call.
        packed: (version of the weight, packed weight) by direction, "forward" or "backward".
    """

    weight: ConvWeight
    bias: Tensor | None
    stride: int
    padding: int
    kept: bool = True
    packed: dict[str, tuple[int, Tensor]] = field(default_factory=dict)

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self.bias if bias is None else bias
        if torch.is_grad_enabled() and hidden.requires_grad:
            return _DifferentiableConv.run(hidden, self, bias)
        return self.forward(hidden, bias)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        weight = self._forward_weight(hidden.shape)
        return _convolve(hidden, weight, bias, self.padding, self.stride)

    def backward(self, gradient: Tensor, size: torch.Size) -> Tensor:
        """Return the gradient of the map alone.

        For stride 1 it is a convolution with every kernel turned by half a turn.
        """
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if self.stride == 1:
            weight = self._backward_weight(gradient.shape)
            return _convolve(gradient, weight, None, self._backward_padding(), 1)
        like = torch.empty(size, dtype=gradient.dtype)
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            gradient,
            like.contiguous(memory_format=torch.channels_last),
            self.weight.plain(),
            None,
            [self.stride] * 2,
            [self.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [True, False, False],
        )
        return gradients[0]

    def _backward_padding(self) -> int:
        return self.weight.held.shape[2] - 1 - self.padding

    def _forward_weight(self, size: torch.Size) -> Tensor:
        held = self.weight.packed
        if held is not None:
            return held
        if not self.kept:
            return self._pack_forward(size)
        packed = self._at_version("forward", lambda: self._pack_forward(size))
        if self.weight.give_up(packed):
            self.packed.pop("forward", None)
        return packed

    def _pack_forward(self, size: torch.Size) -> Tensor:
        return _pack(self.weight.plain().detach(), self.padding, self.stride, size)

    def _backward_weight(self, size: torch.Size) -> Tensor:
        def pack() -> Tensor:
            turned = self.weight.plain().detach().flip(2, 3).transpose(0, 1).contiguous()
            return _pack(turned, self._backward_padding(), 1, size)

        return self._at_version("backward", pack)

    def _at_version(self, direction: str, pack: Callable[[], Tensor]) -> Tensor:
        """Return what is packed for a direction, of the weights as they are now.

        Another thread may take it out meanwhile, where it stands for the weights since.
        """
        version = self.weight.held._version
        kept = self.packed.get(direction)
        if kept is None or kept[0] != version:
            kept = self.packed[direction] = (version, pack())
        return kept[1]


class _DifferentiableConv(torch.autograd.Function):
    """A frozen convolution: a gradient for the map, none for the weights."""

    @classmethod
    def run(cls, hidden: Tensor, conv: _PackedConv, bias: Tensor | None) -> Tensor:
        output: Tensor = cls.apply(hidden, conv, bias)  # type: ignore[no-untyped-call]
        return output

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, conv: _PackedConv, bias: Tensor | None) -> Tensor:
        ctx.conv = conv
        ctx.size = hidden.shape
        return conv.forward(hidden, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.conv.backward(gradients[0], ctx.size), None, None


def _pack(weight: Tensor, padding: int, stride: int, size: torch.Size) -> Tensor:
    packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
        weight.contiguous().to_mkldnn(), [padding] * 2, [stride] * 2, [1, 1], 1, list(size)
    )
    return packed


def _convolve(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int
) -> Tensor:
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        hidden, weight, bias, [padding] * 2, [stride] * 2, [1, 1], 1, "none", [], ""
    )
    return output


@dataclass(eq=False)
class _PackedLinear:
    """A linear map in bfloat16, packed like a convolution.

    Attributes:
        plain: The map; its weight is [O, C].
        packed: (version of the weight, packed weight) by direction, "forward" or "backward".
    """

    plain: Linear
    packed: dict[str, tuple[int, Tensor]] = field(default_factory=dict)

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self.plain.bias if bias is None else bias
        if torch.is_grad_enabled() and hidden.requires_grad:
            return _DifferentiableLinear.run(hidden, self, bias)
        return self.forward(hidden, bias)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        return self._product("forward", hidden, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        return self._product("backward", gradient, None)

    def _product(self, direction: str, hidden: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.plain.weight
        if self.packed.get(direction, (None,))[0] != weight._version:
            plain = weight.detach()
            if direction == "backward":
                plain = plain.t().contiguous()
            rows = hidden.numel() // hidden.shape[-1]
            packed = torch.ops.mkldnn._reorder_linear_weight(plain, rows)
            self.packed[direction] = (weight._version, packed)
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self.packed[direction][1], bias, "none", [], ""
        )
        return output


class _DifferentiableLinear(torch.autograd.Function):
    """A frozen linear map: a gradient for the tokens, none for the weights."""

    @classmethod
    def run(cls, hidden: Tensor, linear: _PackedLinear, bias: Tensor | None) -> Tensor:
        output: Tensor = cls.apply(hidden, linear, bias)  # type: ignore[no-untyped-call]
        return output

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, linear: _PackedLinear, bias: Tensor | None) -> Tensor:
        ctx.linear = linear
        return linear.forward(hidden, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.linear.backward(gradients[0].contiguous()), None, None


def _conv_once(weight: ConvWeight, bias: Tensor | None, stride: int, padding: int) -> _PackedConv:
    return _PackedConv(weight, bias, stride, padding, kept=False)


def _as_it_lies(view: Tensor) -> Tensor:
    """Return a part of a weight uncopied: packing copies it."""
    return view


def _linear(weight: Tensor, bias: Tensor | None) -> Linear | _PackedLinear:
    plain = Linear(weight, bias)
    return _PackedLinear(plain) if weight.dtype == torch.bfloat16 else plain


PACKED_OPERATORS = Operators(
    memory_format=torch.channels_last,
    conv=_PackedConv,
    linear=_linear,
    norm=Norm,
    once=_conv_once,
    part=_as_it_lies,
)
"""What layers are computed with."""


def _build_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    operators = replace(PACKED_OPERATORS, attention=attention.attend)
    return UNet(model.unet.held, operators), {}


PACKED = Backend(
    "packed",
    "oneDNN with weights packed once, channels_last",
    lambda model: objections_to(model.device, model.dtype),
    build_unet=_build_unet,
)

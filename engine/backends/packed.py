"""Weights packed once for oneDNN, maps in channels_last: the CPU's way to run frozen layers.

PyTorch's convolution hands oneDNN its weights as they lie, and oneDNN reorders them at every call, which for small maps costs more than the sum
itself (1280 x 1280 x 3 x 3 on an 8 x 8 map: 22 ms as they lie, 7 ms packed; float32, two threads of a Xeon with AMX). Frozen weights are packed once.
For the gradient of a map, which is a convolution with the weights turned round, they are packed a second time when the first gradient is asked for.
bfloat16 linear maps are packed likewise; in float32 the matrix product reads plain weights as fast.

The packing operators are the ones that torch.compile uses when it freezes a network (`torch.ops.mkldnn`); `objections` asks whether they are here.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Operators, UNet
from ..diffusion.unet.operators import Conv, Linear, Norm
from .attention import Attention
from .backend import Backend, Gates

__all__ = ["PACKED", "PACKED_OPERATORS", "objections"]

_NEEDED = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")


def objections(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Why packed weights cannot serve; empty if they can."""
    found = []
    if device.type != "cpu":
        found.append(f"packed weights are the CPU's, the model is on {device}")
    elif not torch.backends.mkldnn.is_available():
        found.append("this PyTorch was built without oneDNN")
    elif missing := [name for name in _NEEDED if not hasattr(torch.ops.mkldnn, name)]:
        found.append(f"this PyTorch has no torch.ops.mkldnn.{', '.join(missing)}")
    elif dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found.append("this CPU has no bfloat16 instructions that oneDNN uses")
    elif dtype not in (torch.float32, torch.bfloat16):
        found.append(f"weights of {dtype} are not packed")
    return found or _tried(dtype)


def _tried(dtype: torch.dtype) -> list[str]:
    """What a small convolution says: the operators may be here and refuse this processor."""
    hidden = (
        torch.linspace(-1, 1, 128).view(1, 8, 4, 4).to(dtype, memory_format=torch.channels_last)
    )
    weight = torch.linspace(-1, 1, 576).sin().view(8, 8, 3, 3).to(dtype)
    try:
        mine = _conv(weight, None, 1, 1)(hidden)
    except RuntimeError as refused:
        return [f"oneDNN refuses packed weights of {dtype} here: {str(refused).splitlines()[0]}"]
    theirs = Conv(weight, None, 1, 1)(hidden)
    apart = float((mine - theirs).abs().max() / theirs.abs().max())
    return (
        [] if apart < 2e-2 else [f"oneDNN is {apart:.1e} off with packed weights of {dtype} here"]
    )


@dataclass(eq=False)
class _PackedConv:
    """A convolution [O, C, k, k] with its weights packed for each direction when that is first run; repacked if the weights have changed since."""

    plain: Conv
    packed: dict[str, tuple[int, Tensor]] = field(default_factory=dict)

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self.plain.bias if bias is None else bias
        if torch.is_grad_enabled() and hidden.requires_grad:
            found: Tensor = _Differentiable.apply(hidden, self, bias)  # type: ignore[no-untyped-call]
            return found
        return self.forward(hidden, bias)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        plain = self.plain
        weight = self._weights("forward", hidden.shape)
        return _convolve(hidden, weight, bias, plain.padding, plain.stride)

    def backward(self, gradient: Tensor, size: torch.Size) -> Tensor:
        """With respect to the map alone: for stride 1, a convolution with every kernel turned by half a turn."""
        plain = self.plain
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if plain.stride == 1:
            weight = self._weights("backward", gradient.shape)
            return _convolve(gradient, weight, None, plain.weight.shape[2] - 1 - plain.padding, 1)
        given = torch.empty(size, dtype=gradient.dtype).contiguous(
            memory_format=torch.channels_last
        )
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient,
            given,
            plain.weight,
            None,
            [plain.stride] * 2,
            [plain.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [True, False, False],
        )[0]
        return found

    def _weights(self, direction: str, size: torch.Size) -> Tensor:
        weight, version = self.plain.weight, self.plain.weight._version
        known = self.packed.get(direction)
        if known is None or known[0] != version:
            padding, stride = self.plain.padding, self.plain.stride
            given = weight.detach()
            if direction == "backward":
                given, padding, stride = (
                    given.flip(2, 3).transpose(0, 1).contiguous(),
                    weight.shape[2] - 1 - padding,
                    1,
                )
            known = (version, _pack(given, padding, stride, size))
            self.packed[direction] = known
        return known[1]


class _Differentiable(torch.autograd.Function):
    """A frozen convolution: a gradient for the map, none for the weights."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, conv: _PackedConv, bias: Tensor | None) -> Tensor:
        ctx.conv, ctx.size = conv, hidden.shape
        return conv.forward(hidden, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.conv.backward(gradients[0], ctx.size), None, None


def _pack(weight: Tensor, padding: int, stride: int, size: torch.Size) -> Tensor:
    packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
        weight.to_mkldnn(), [padding] * 2, [stride] * 2, [1, 1], 1, list(size)
    )
    return packed


def _convolve(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int
) -> Tensor:
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(
        hidden, weight, bias, [padding] * 2, [stride] * 2, [1, 1], 1, "none", [], ""
    )
    return found


@dataclass(eq=False)
class _PackedLinear:
    """A linear map [O, C] in bfloat16, packed like a convolution."""

    plain: Linear
    packed: dict[str, tuple[int, Tensor]] = field(default_factory=dict)

    def __call__(self, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled() and hidden.requires_grad:
            found: Tensor = _DifferentiableLinear.apply(hidden, self)  # type: ignore[no-untyped-call]
            return found
        return self.forward(hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return self._product("forward", hidden, self.plain.bias)

    def backward(self, gradient: Tensor) -> Tensor:
        return self._product("backward", gradient, None)

    def _product(self, direction: str, hidden: Tensor, bias: Tensor | None) -> Tensor:
        weight, version = self.plain.weight, self.plain.weight._version
        known = self.packed.get(direction)
        if known is None or known[0] != version:
            given = weight.detach() if direction == "forward" else weight.detach().t().contiguous()
            known = (
                version,
                torch.ops.mkldnn._reorder_linear_weight(given, hidden.numel() // hidden.shape[-1]),
            )
            self.packed[direction] = known
        found: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, known[1], bias, "none", [], "")
        return found


class _DifferentiableLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, linear: _PackedLinear) -> Tensor:
        ctx.linear = linear
        return linear.forward(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.backward(gradients[0].contiguous()), None


def _conv(weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> _PackedConv:
    return _PackedConv(Conv(weight, bias, stride, padding))


def _linear(weight: Tensor, bias: Tensor | None) -> Linear | _PackedLinear:
    plain = Linear(weight, bias)
    return _PackedLinear(plain) if weight.dtype == torch.bfloat16 else plain


PACKED_OPERATORS = Operators(
    memory_format=torch.channels_last, conv=_conv, linear=_linear, norm=Norm
)


def _build_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    operators = replace(PACKED_OPERATORS, attention=attention.attend)
    return UNet(model.unet.network, operators), {}


PACKED = Backend(
    "packed",
    "oneDNN with weights packed once, channels_last",
    lambda model: objections(model.device, model.dtype),
    build_unet=_build_unet,
)

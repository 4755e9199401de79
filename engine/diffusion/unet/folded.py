"""The decoder half with everything that the skips contribute computed once: constant-skip folding.

Every residual block of the up blocks reads `concat(dynamic, skip)`, and during a drag only the dynamic channels change. Its first convolution and its
shortcut are linear in their input channels, so the part that reads constant channels is a constant; the time embedding is another. GroupNorm mixes
channels only within a group: groups of skip channels alone are constant too. Where a group straddles the boundary, its skip channels are
counted with the dynamic ones, so with C_d dynamic channels in groups of g

    B = g * ceil(C_d / g),    conv1(act(norm([x, s]))) = conv1[:, :B](act(norm[:B]([x, s[:B - C_d]]))) + constant
                              shortcut([x, s])         = shortcut[:, :C_d](x) + constant

which is the same sum in another order: exact but for rounding. On Stable Diffusion 1.5 it saves 13 % of an iteration's FLOPs and 23 % of its weights.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...cache.structure import storable
from .layers import Resnet, scaled
from .operators import Convolution, Layer, Operators

__all__ = ["Constants", "FoldedResnet"]


@storable
class Constants(NamedTuple):
    """What the skips [N, S, H, W] and the step contribute to one block, [N, O, H, W] each, and the skip channels [N, B - C_d, H, W] that share a
    group with dynamic ones (None where none does). N: how many texts there are."""

    straddling: Tensor | None
    inner: Tensor
    outer: Tensor


@dataclass(frozen=True, eq=False)
class FoldedResnet:
    """A residual block split at its boundary: weights only, so made once for a network.

    dynamic, bound: C_d and B above. norm, conv, shortcut: what reads dynamic channels. rest_*: what reads
    constant ones, None where there are none.
    """

    resnet: Resnet
    dynamic: int
    bound: int
    norm: Layer
    conv: Convolution
    rest_norm: Layer | None
    rest_conv: Convolution | None
    shortcut: Convolution
    rest_shortcut: Convolution

    @classmethod
    def of(
        cls, operators: Operators, resnet: Resnet, module: Any, skip_channels: int
    ) -> "FoldedResnet":
        """`resnet` and the diffusers module that it was made of, whose last `skip_channels` inputs are a skip."""
        norm, conv, channels = module.norm1, module.conv1, module.norm1.num_channels
        dynamic, size = channels - skip_channels, channels // norm.num_groups
        groups = -(-dynamic // size)
        bound = groups * size
        weight, bias = _shortcut(module)
        rest = slice(bound, None)
        padding = int(conv.padding[0])
        return cls(
            resnet,
            dynamic,
            bound,
            norm=operators.norm(norm.weight[:bound], norm.bias[:bound], groups, norm.eps, True),
            conv=operators.conv(conv.weight[:, :bound].contiguous(), None, 1, padding),
            rest_norm=None
            if bound == channels
            else operators.norm(
                norm.weight[rest], norm.bias[rest], norm.num_groups - groups, norm.eps, True
            ),
            rest_conv=None
            if bound == channels
            else operators.conv(conv.weight[:, rest].contiguous(), None, 1, padding),
            shortcut=operators.conv(weight[:, :dynamic].contiguous(), None, 1, 0),
            rest_shortcut=operators.conv(weight[:, dynamic:].contiguous(), bias, 1, 0),
        )

    def constants(self, skip: Tensor, times: Tensor) -> Constants:
        """Of this block's skip and step."""
        straddling = self.bound - self.dynamic
        outer = self.rest_shortcut(skip)
        own = times[self.resnet.times]
        if self.rest_norm is None or self.rest_conv is None:
            inner = own[None, :, None, None].expand_as(outer)
        else:
            inner = self.rest_conv(self.rest_norm(skip[:, straddling:]), own)
        return Constants(skip[:, :straddling] if straddling else None, inner, outer)

    def __call__(self, hidden: Tensor, constants: Constants) -> Tensor:
        """[N, O, H, W] from the dynamic channels [N, C_d, H, W]."""
        resnet, straddling = self.resnet, constants.straddling
        joined = hidden if straddling is None else torch.cat([hidden, straddling], dim=1)
        inner = self.conv(self.norm(joined)) + constants.inner
        inner = resnet.conv2(resnet.norm2(inner))
        return scaled(self.shortcut(hidden) + constants.outer + inner, resnet.scale)


def _shortcut(module: Any) -> tuple[Tensor, Tensor | None]:
    """The shortcut's weight [O, C, 1, 1] and bias; the identity has a weight too."""
    if module.conv_shortcut is not None:
        return module.conv_shortcut.weight, module.conv_shortcut.bias
    like = module.conv1.weight
    return torch.eye(module.norm1.num_channels).to(like)[:, :, None, None], None

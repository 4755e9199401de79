"""Run the decoder half with all that the skips contribute computed once: constant-skip folding.

Every residual block of the up blocks reads `concat(dynamic, skip)`, and during a drag only the
dynamic channels change. Its first convolution and its shortcut are linear in their input channels,
so what reads constant channels is a constant; the time embedding is another. GroupNorm mixes
channels only within a group: groups of skip channels alone are constant too. Where a group
straddles the boundary, its skip channels are counted with the dynamic ones, so with C_d dynamic
channels in groups of g

    B = g * ceil(C_d / g),   y = [x, s[:B - C_d]]
    conv1(act(norm([x, s]))) = conv1[:, :B](act(norm[:B](y))) + constant
    shortcut([x, s])         = shortcut[:, :B](y) + constant

which is the same sum in another order: exact but for rounding. On Stable Diffusion 1.5 it saves
13 % of an iteration's FLOPs and 23 % of its weights.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...cache.structure import storable
from .held import ConvWeight
from .layers import Build, Resnet, joined
from .operators import Biased, Norm
from .sums import Sum

__all__ = ["Constants", "FoldedResnet"]


@storable
class Constants(NamedTuple):
    """A contribution of the skips [N, S, H, W] and the step to one block; N texts.

    Attributes:
        straddling: The skip channels [N, B - C_d, H, W] that share a group with dynamic ones; None
            where none does.
        inner: To the first convolution's output [N, O, H, W], or [1, O, 1, 1] for the step's alone.
        outer: To the shortcut's output [N, O, H, W], or [1, O, 1, 1] for a bias alone, if any.
    """

    straddling: Tensor | None
    inner: Tensor
    outer: Tensor | None


@dataclass(frozen=True, eq=False)
class FoldedResnet:
    """A residual block split at its boundary: weights only, so made once for a network.

    Attributes:
        resnet: The block itself.
        dynamic: C_d above.
        bound: B above.
        norm: Of the dynamic channels.
        conv: Of the dynamic channels.
        rest_norm: Of the constant channels; None where there are none.
        rest_conv: Of the constant channels; None where there are none.
        shortcut: Of the dynamic channels.
        rest_shortcut: Of the constant channels; None where there are none.
        end: A bias that is added at the end where there is no `rest_shortcut` to add it.
        order: How maps lie in memory.
    """

    resnet: Resnet
    dynamic: int
    bound: int
    norm: Norm
    conv: Biased
    rest_norm: Norm | None
    rest_conv: Biased | None
    shortcut: Biased
    rest_shortcut: Biased | None
    end: Tensor | None
    order: torch.memory_format

    @classmethod
    def of(cls, build: Build, resnet: Resnet, module: Any, skip_channels: int) -> "FoldedResnet":
        """Split a residual block.

        Args:
            build: What builds its layers.
            resnet: The block.
            module: The module of diffusers that it was made of.
            skip_channels: How many of its last inputs are a skip.
        """
        operators = build.operators
        norm = module.norm1
        channels = norm.num_channels
        dynamic = channels - skip_channels
        size = channels // norm.num_groups
        groups = -(-dynamic // size)
        bound = groups * size
        padding = int(module.conv1.padding[0])

        def norm_of(part: slice, groups: int) -> Norm:
            return operators.norm(norm.weight[part], norm.bias[part], groups, norm.eps, True)

        def part_of(weight: ConvWeight, part: slice) -> ConvWeight:
            return weight.part(part, operators.part)

        first = slice(bound)
        rest = slice(bound, None)
        all_dynamic = bound == channels
        conv = ConvWeight(module.conv1, build.holder)
        shortcut = _shortcut(module, build)
        biases = build.end_biases(module)
        bias = biases.outer if biases.joint is None else biases.joint
        return cls(
            resnet,
            dynamic,
            bound,
            norm=norm_of(first, groups),
            conv=operators.conv(part_of(conv, first), None, 1, padding),
            rest_norm=None if all_dynamic else norm_of(rest, norm.num_groups - groups),
            rest_conv=(
                None if all_dynamic else operators.once(part_of(conv, rest), None, 1, padding)
            ),
            shortcut=operators.conv(part_of(shortcut, first), None, 1, 0),
            rest_shortcut=(
                None if all_dynamic else operators.once(part_of(shortcut, rest), bias, 1, 0)
            ),
            end=bias if all_dynamic else None,
            order=operators.memory_format,
        )

    def constants(self, skip: Tensor, times: Tensor) -> Constants:
        """Compute what a skip [N, S, H, W] and a step [S] contribute."""
        first = self.bound - self.dynamic
        straddling = skip[:, :first].contiguous(memory_format=self.order) if first else None
        own = times[self.resnet.times]
        if self.rest_norm is None or self.rest_conv is None or self.rest_shortcut is None:
            end = None if self.end is None else self.end[None, :, None, None]
            return Constants(straddling, own[None, :, None, None], end)
        rest = skip[:, first:]
        inner = self.rest_conv(self.rest_norm(rest), own)
        return Constants(straddling, inner, self.rest_shortcut(rest))

    def __call__(self, hidden: Sum, constants: Constants) -> Sum:
        """Return [N, O, H, W] from the dynamic channels [N, C_d, H, W]."""
        resnet = self.resnet
        straddling = constants.straddling
        dynamic = hidden if straddling is None else hidden.beside(straddling)
        first = Sum(self.conv(dynamic.normed(self.norm)), plus=constants.inner)
        inner = resnet.conv2(first.normed(resnet.norm2))
        return joined(self.shortcut(dynamic.value()), inner, constants.outer, resnet.scale)


def _shortcut(module: Any, build: Build) -> ConvWeight:
    """Return the shortcut's weight [O, C, 1, 1]; the identity has one too."""
    if module.conv_shortcut is not None:
        return ConvWeight(module.conv_shortcut, build.holder)
    like = module.conv1.weight
    identity = torch.eye(module.norm1.num_channels, dtype=torch.float32)
    return ConvWeight.of(identity.to(like.device, like.dtype)[:, :, None, None])

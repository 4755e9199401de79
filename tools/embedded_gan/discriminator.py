"""Tell drawn pictures from made ones: StyleGAN2's residual discriminator (figure 7 (c))."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dragnoise.engine.gan.layers import Linear, activated, halving

GROUP = 4
_ROOT = math.sqrt(2)


class Convolution(nn.Module):
    """A convolution with equalised weights, after which a picture may be half as large.

    Args:
        inputs: Channels before.
        outputs: Channels after.
        taps: Side of the kernel.
        halves: Whether the picture is halved, after the filter.
        active: Whether a bias and a leaky rectifier follow.
    """

    def __init__(
        self, inputs: int, outputs: int, taps: int, *, halves: bool = False, active: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, taps, taps))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None
        self.gain = (_ROOT if active else 1.0) / math.sqrt(inputs * taps * taps)
        self.halves = halves
        self.padding = (taps + 1) // 2 if halves else taps // 2

    def forward(self, value: Tensor) -> Tensor:
        weight = self.weight * self.gain
        kernel = (halving(weight) if self.halves else weight).to(value.dtype)
        bias = None if self.bias is None else (_ROOT * self.bias).to(value.dtype)
        stride = 2 if self.halves else 1
        result = functional.conv2d(value, kernel, bias, stride, self.padding)
        return result if self.bias is None else activated(result)


class Block(nn.Module):
    """Two convolutions that halve the picture, beside a straight path."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, inputs, 3)
        self.second = Convolution(inputs, outputs, 3, halves=True)
        self.straight = Convolution(inputs, outputs, 1, halves=True, active=False)

    def forward(self, value: Tensor) -> Tensor:
        both: Tensor = self.second(self.first(value)) + self.straight(value)
        return both / _ROOT


class Discriminator(nn.Module):
    """The network that scores pictures.

    Args:
        channels: At each resolution, from 4 x 4 on, as the generator's.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        downwards = channels[::-1]
        self.colours = Convolution(3, downwards[0], 1)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(downwards)))
        self.last = Convolution(channels[0] + 1, channels[0], 3)
        self.wide = Linear(channels[0] * 16, channels[0], active=True)
        self.score = Linear(channels[0], 1)

    def forward(self, pictures: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Score pictures, float32 [N, 3, H, W] in -1..1: [N], higher where they look drawn.

        Every `GROUP` pictures in a row are judged together, so N is a multiple of it.
        """
        value = pictures.to(dtype).contiguous(memory_format=torch.channels_last)
        value = self.blocks(self.colours(value)).float()
        value = self.last(torch.cat([value, _deviation(value)], 1))
        scores: Tensor = self.score(self.wide(value.flatten(1)))
        return scores[:, 0]


def _deviation(value: Tensor) -> Tensor:
    """Return the mean deviation within each group of pictures, as a feature [N, 1, H, W].

    Karras et al. 2018, section 3: a generator that makes the same picture again is found out.
    """
    groups = value.view(-1, GROUP, *value.shape[1:])
    mean = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    return mean.repeat_interleave(GROUP)[:, None, None, None].expand(-1, 1, *value.shape[2:])

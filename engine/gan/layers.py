"""Compute StyleGAN2's layers: equalised weights, modulated convolutions, resampling.

Every resampling by the filter [1, 3, 3, 1] that stands beside a convolution is folded into that
convolution's weights, which is exact: a 3 x 3 convolution of a picture enlarged twofold is four
3 x 3 convolutions of the small one, and of a picture that is halved one of 6 x 6. The values that
stand between the two are never made.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "SLOPE",
    "Colour",
    "Linear",
    "StyledConvolution",
    "activated",
    "convolved",
    "demodulation",
    "enlarged",
    "enlarging",
    "halving",
    "smoothing",
]

FILTER = (0.125, 0.375, 0.375, 0.125)
"""The low-pass filter along one axis, its sum one."""

SLOPE = 0.2
"""The leaky rectifier's slope below zero."""

_ROOT = math.sqrt(2)
_TINY = 1e-8


@cache
@torch.inference_mode(False)
def _blur(taps: int, device: torch.device) -> Tensor:
    """Return the map from a kernel of `taps` to that kernel convolved with the filter.

    Returns:
        float32 [taps, taps + 3].
    """
    rows = torch.zeros(taps, taps + 3, dtype=torch.float32)
    for tap in range(taps):
        rows[tap, tap : tap + 4] = torch.tensor(FILTER, dtype=torch.float32)
    return rows.to(device)


@cache
@torch.inference_mode(False)
def _phases(device: torch.device) -> Tensor:
    """Return the map from a kernel of three taps to those of its two phases when it enlarges.

    The phase `a` is the outputs 2i + a. Its tap `t` reads the input i + t - 1, which the blurred
    kernel of six taps meets at a + 4 - 2t. The gain is 2 along each axis.

    Returns:
        float32 [3, 2, 3]: tap, phase, tap of the phase.
    """
    taps = torch.tensor(
        [[phase + 4 - 2 * tap for tap in range(3)] for phase in range(2)], dtype=torch.int64
    )
    return 2 * _blur(3, device)[:, taps]


@cache
@torch.inference_mode(False)
def smoothing(device: torch.device) -> Tensor:
    """Return the filter along both axes with the gain of an enlargement, float32 [1, 1, 4, 4]."""
    taps = 2 * torch.tensor(FILTER, dtype=torch.float32)
    return (taps[:, None] * taps)[None, None].to(device)


def enlarging(weight: Tensor) -> Tensor:
    """Fold an enlargement and its filter into a convolution.

    Args:
        weight: [O, C, 3, 3].

    Returns:
        [4 O, C, 3, 3]: the convolution's results are to be `interleaved`.
    """
    along = _phases(weight.device)
    folded = torch.einsum("ocij,iat,jbs->abocts", weight, along, along)
    return folded.reshape(4 * weight.shape[0], *weight.shape[1:])


def interleaved(phases: Tensor) -> Tensor:
    """Lay four phases out as one picture, [N, 4 O, H, W] to [N, O, 2 H, 2 W]."""
    n, channels, height, width = phases.shape
    split = phases.permute(0, 2, 3, 1).reshape(n, height, width, 2, 2, channels // 4)
    picture = split.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, channels // 4)
    return picture.permute(0, 3, 1, 2)


def halving(weight: Tensor) -> Tensor:
    """Fold the filter into a convolution that halves a picture.

    Args:
        weight: [O, C, k, k].

    Returns:
        [O, C, k + 3, k + 3], for a stride of 2 and a padding of (k + 1) // 2.
    """
    along = _blur(weight.shape[-1], weight.device)
    return torch.einsum("ocij,ia,jb->ocab", weight, along, along)


def enlarged(picture: Tensor) -> Tensor:
    """Enlarge a picture twofold with the filter; outside of it there are zeros.

    Output 2i is (x[i-1] + 3 x[i]) / 4 along each axis, output 2i + 1 is (3 x[i] + x[i+1]) / 4.
    """
    for axis in (2, 3):
        count = picture.shape[axis]
        padded = functional.pad(picture, (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0))
        before, after = padded.narrow(axis, 0, count), padded.narrow(axis, 2, count)
        pair = torch.stack([before + 3 * picture, 3 * picture + after], axis + 1)
        picture = pair.flatten(axis, axis + 1) / 4
    return picture


def activated(value: Tensor) -> Tensor:
    """Apply the leaky rectifier; its gain of the square root of two is in the factors before it."""
    return functional.leaky_relu(value, SLOPE)


class Linear(nn.Module):
    """A linear map whose weights have unit deviation and are scaled where they are used.

    Args:
        rate: What the learning rate is multiplied by.
        bias: The first value of the bias.
        active: Whether a leaky rectifier follows, with a gain of the square root of two.
    """

    def __init__(
        self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0, active: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, dtype=torch.float32) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate, dtype=torch.float32))
        gain = _ROOT if active else 1.0
        self.weight_gain = gain * rate / math.sqrt(inputs)
        self.bias_gain = gain * rate
        self.active = active

    def forward(self, value: Tensor) -> Tensor:
        result = functional.linear(
            value, self.weight * self.weight_gain, self.bias * self.bias_gain
        )
        return activated(result) if self.active else result


def convolved(value: Tensor, kernel: Tensor, bias: Tensor | None, enlarges: bool) -> Tensor:
    """Convolve, after enlarging where that is asked for.

    On a CPU a transposed convolution and then the filter take a third of the time of the folded
    kernel, which has four times the weights.

    Args:
        value: [N, C, H, W].
        kernel: [O, C, 3, 3]; [C, O, 3, 3] where it enlarges.
        bias: [O].
        enlarges: Whether the picture is enlarged twofold.
    """
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    if not enlarges:
        return functional.conv2d(value, kernel, bias, padding=1)
    spread = functional.conv_transpose2d(value, kernel, stride=2)
    channels = kernel.shape[1]
    taps = smoothing(value.device).to(value.dtype).expand(channels, -1, -1, -1)
    return functional.conv2d(spread, taps, bias, padding=1, groups=channels)


class StyledConvolution(nn.Module):
    """A 3 x 3 convolution whose input channels are scaled by a style (section 2.2 of the paper).

    With the style s and the weights W of unit gain, output channel o is divided by
    sqrt(sum over c, i, j of (s_c W_ocij)^2 + 1e-8), so that its deviation stays one. Scaling the
    input and the result is the same as scaling each picture's weights, and needs one convolution
    for the whole batch.

    Args:
        inputs: Channels before.
        outputs: Channels after.
        w: Width of a style vector.
        size: Side of the result, pixels.
        enlarges: Whether the picture is enlarged twofold.
        noise: Whether a fixed picture of noise is added.
    """

    noise: Tensor

    def __init__(
        self, inputs: int, outputs: int, w: int, size: int, *, enlarges: bool, noise: bool
    ) -> None:
        super().__init__()
        self.style = Linear(w, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))
        self.gain = 1 / math.sqrt(inputs * 9)
        self.enlarges = enlarges
        self.noisy = noise
        if noise:
            self.strength = nn.Parameter(torch.zeros((), dtype=torch.float32))
            self.register_buffer("noise", torch.randn(1, 1, size, size, dtype=torch.float32))

    def forward(self, value: Tensor, row: Tensor) -> Tensor:
        """Compute the layer; `row` are the style vectors [N, w], float32."""
        style = self.style(row)
        weight = self.weight * self.gain
        scale = demodulation(style, weight.square().sum((2, 3)).t())
        scaled = value * _wide(style.to(value.dtype))
        if self.enlarges and value.is_cuda:
            kernel = enlarging(weight).to(value.dtype)
            result = interleaved(functional.conv2d(scaled, kernel, padding=1))
        else:
            kernel = weight.transpose(0, 1) if self.enlarges else weight
            result = convolved(scaled, kernel.to(value.dtype), None, self.enlarges)
        bias = self.scaled_bias().to(value.dtype)[None, :, None, None]
        noise = self.scaled_noise()
        if noise is not None:
            bias = bias + noise.to(value.dtype)
        return activated(torch.addcmul(bias, result, _wide(scale.to(value.dtype))))

    def scaled_bias(self) -> Tensor:
        """Return the bias with the rectifier's gain, [O]."""
        return _ROOT * self.bias

    def scaled_noise(self) -> Tensor | None:
        """Return what the noise adds, with the rectifier's gain, [1, 1, H, W]; None for nothing."""
        return _ROOT * self.strength * self.noise if self.noisy else None


def demodulation(style: Tensor, energy: Tensor) -> Tensor:
    """Return what the results are multiplied by, with the rectifier's gain, [N, O].

    Args:
        style: [N, C].
        energy: Sums of the squared weights over the kernel, [C, O].
    """
    return _ROOT * torch.rsqrt(style.square() @ energy + _TINY)


class Colour(nn.Module):
    """A 1 x 1 convolution from features to colours, scaled by a style; nothing is divided."""

    def __init__(self, inputs: int, w: int) -> None:
        super().__init__()
        self.style = Linear(w, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(3, dtype=torch.float32))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, value: Tensor, row: Tensor) -> Tensor:
        """Compute the colours, float32 [N, 3, H, W]."""
        scaled = value * _wide((self.style(row) * self.gain).to(value.dtype))
        colours = functional.conv2d(scaled, self.weight.to(value.dtype))
        return colours.float() + self.bias[None, :, None, None]


def _wide(values: Tensor) -> Tensor:
    return values[:, :, None, None]

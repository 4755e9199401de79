"""The layers equal what the papers write down, computed step by step."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dragnoise.engine.gan.layers import (
    SLOPE,
    Colour,
    Linear,
    StyledConvolution,
    enlarged,
    enlarging,
    halving,
    interleaved,
)


def filtered(value: Tensor, before: int, after: int, gain: float) -> Tensor:
    """Pad by zeros, then filter by [1, 3, 3, 1] along both axes."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (gain * taps[:, None] * taps).expand(value.shape[1], 1, 4, 4)
    padded = functional.pad(value, (before, after, before, after))
    return functional.conv2d(padded, kernel, groups=value.shape[1])


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def test_an_enlarging_convolution_is_a_transposed_one_and_the_filter() -> None:
    value, weight = drawn(2, 3, 5, 7), drawn(4, 3, 3, 3)
    folded = interleaved(functional.conv2d(value, enlarging(weight), padding=1))
    transposed = functional.conv_transpose2d(value, weight.transpose(0, 1), stride=2)
    torch.testing.assert_close(folded, filtered(transposed, 1, 1, 4))


@pytest.mark.parametrize("taps", [1, 3])
def test_a_halving_convolution_is_the_filter_and_a_stride(taps: int) -> None:
    value, weight = drawn(2, 3, 8, 6), drawn(4, 3, taps, taps)
    folded = functional.conv2d(value, halving(weight), stride=2, padding=(taps + 1) // 2)
    wide = (taps + 1) // 2
    expected = functional.conv2d(filtered(value, wide, wide, 1), weight, stride=2)
    torch.testing.assert_close(folded, expected)


def test_a_picture_is_enlarged_between_zeros_and_filtered() -> None:
    value = drawn(2, 3, 4, 5)
    between = torch.zeros(2, 3, 8, 10)
    between[:, :, ::2, ::2] = value
    torch.testing.assert_close(enlarged(value), filtered(between, 2, 1, 4))


@pytest.mark.parametrize("enlarges", [False, True])
def test_a_styled_convolution_scales_each_pictures_own_weights(enlarges: bool) -> None:
    """Karras et al. 2020, equations 1 and 3: one picture and one kernel at a time."""
    torch.manual_seed(3)
    layer = StyledConvolution(3, 4, 6, 10 if enlarges else 5, enlarges=enlarges, noise=True)
    with torch.no_grad():
        layer.strength.fill_(0.3)
        layer.bias.copy_(drawn(4))
    value, row = drawn(2, 3, 5, 5), drawn(2, 6)
    result = layer(value, row)
    style = functional.linear(row, layer.style.weight / math.sqrt(6), layer.style.bias)
    for number in range(2):
        kernel = layer.weight * style[number][None, :, None, None] / math.sqrt(27)
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        one = value[number : number + 1]
        if enlarges:
            one = functional.conv_transpose2d(one, kernel.transpose(0, 1), stride=2)
            one = filtered(one, 1, 1, 4)
        else:
            one = functional.conv2d(one, kernel, padding=1)
        one = one + 0.3 * layer.noise + layer.bias[None, :, None, None]
        expected = math.sqrt(2) * functional.leaky_relu(one, SLOPE)
        torch.testing.assert_close(result[number : number + 1], expected)


def test_colours_are_scaled_by_the_style_and_nothing_is_divided() -> None:
    torch.manual_seed(4)
    layer = Colour(5, 6)
    value, row = drawn(2, 5, 4, 4), drawn(2, 6)
    style = layer.style(row) / math.sqrt(5)
    expected = torch.einsum("nchw,nc,oc->nohw", value, style, layer.weight[:, :, 0, 0])
    torch.testing.assert_close(layer(value, row), expected + layer.bias[None, :, None, None])


def test_a_slow_layer_computes_the_same_at_first() -> None:
    """The rate scales how fast a weight moves, not what the layer computes."""
    value = drawn(64, 256)
    torch.manual_seed(5)
    slow = Linear(256, 256, rate=0.01, active=True)
    torch.manual_seed(5)
    plain = Linear(256, 256, active=True)
    torch.testing.assert_close(slow(value), plain(value), atol=1e-4, rtol=1e-4)
    assert abs(float(plain(value).detach().square().mean()) - 1) < 0.2

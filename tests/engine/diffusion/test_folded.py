"""Folding the skips into the decoder half changes the order of sums and nothing else."""

from functools import partial

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dragnoise.engine.diffusion.unet import UNet, Up


def network(dtype: torch.dtype, **changes: object) -> UNet:
    """Build a small network with Stable Diffusion's structure and ratios of widths.

    Skips of 32 channels beside 64 dynamic ones, in groups of 6, straddle.
    """
    torch.manual_seed(0)
    settings = {
        "sample_size": 16,
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
        "block_out_channels": (16, 32, 64, 64),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    }
    built = UNet2DConditionModel(**(settings | changes))
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(0.2 * torch.randn_like(weight) * (weight.std() if weight.ndim > 1 else 1.0))
    return UNet(built.to(dtype).requires_grad_(False).eval())


def both(unet: UNet, size: tuple[int, int], output: bool = True) -> list[tuple[Up, Tensor, Tensor]]:
    """(what is seen, its gradient at the bottleneck, the bottleneck), plain and folded."""
    torch.manual_seed(1)
    dtype = unet.dtype
    latent, text = torch.randn(1, 4, *size).to(dtype), torch.randn(1, 9, 24).to(dtype)
    down = unet.down(latent, unet.step(481, text))
    bottleneck = unet.middle(down)
    moved = bottleneck + 0.3 * torch.randn_like(bottleneck)
    found = []
    for decoder in (partial(unet.up, down), partial(unet.decode, unet.folded(down))):
        leaf = moved.clone().requires_grad_()
        up = decoder(leaf, 2, output)
        assert up.features is not None
        seen = [part for part in (up.features, up.output) if part is not None]
        weights = [torch.linspace(-1, 1, part.numel()).view(part.shape).to(part) for part in seen]
        value = torch.stack(
            [(part * weight).sum() for part, weight in zip(seen, weights, strict=True)]
        ).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        found.append((up, gradient, leaf))
    return found


def relative(one: Tensor, other: Tensor) -> float:
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("output", [True, False], ids=["whole", "to the features"])
@pytest.mark.parametrize("size", [(16, 16), (24, 16), (13, 19)])
def test_float64(size: tuple[int, int], output: bool) -> None:
    (plain, gradient, _), (folded, folded_gradient, _) = both(network(torch.float64), size, output)
    assert plain.features is not None
    assert folded.features is not None
    assert relative(plain.features, folded.features) < 1e-12
    assert relative(gradient, folded_gradient) < 1e-12
    assert (plain.output is None) == (folded.output is None) == (not output)
    if plain.output is not None and folded.output is not None:
        assert relative(plain.output, folded.output) < 1e-12


def test_groups_do_straddle() -> None:
    """Blocks of every kind are there: aligned, straddling, with and without constant groups."""
    resnets = [resnet for level in network(torch.float64)._folded_resnets for resnet in level]
    straddling = [resnet.bound - resnet.dynamic for resnet in resnets]
    assert len(resnets) == 12
    assert 0 in straddling
    assert sum(map(bool, straddling)) == 4


@pytest.mark.parametrize(
    "changes",
    [{"layers_per_block": 1}, {"norm_num_groups": 1}, {"block_out_channels": (16, 16, 32, 32)}],
    ids=str,
)
def test_other_structures(changes: dict[str, object]) -> None:
    (plain, gradient, _), (folded, folded_gradient, _) = both(
        network(torch.float64, **changes), (16, 16)
    )
    assert plain.output is not None
    assert folded.output is not None
    assert relative(plain.output, folded.output) < 1e-12
    assert relative(gradient, folded_gradient) < 1e-12


def test_bfloat16_is_as_near_to_the_truth_as_the_plain_graph() -> None:
    """Folding may not lose more than 1.3 times what bfloat16 loses anyway.

    Both are compared with float32 on the same rounded weights.
    """
    exact, rounded = network(torch.bfloat16), network(torch.bfloat16)
    exact = UNet(exact.network.float())
    truth, truth_gradient, _ = both(exact, (16, 16))[0]
    (plain, gradient, _), (folded, folded_gradient, _) = both(rounded, (16, 16))
    for true, one, other in (
        (truth.output, plain.output, folded.output),
        (truth_gradient, gradient, folded_gradient),
    ):
        assert true is not None
        assert one is not None
        assert other is not None
        assert relative(true, other) < 1.3 * relative(true, one) < 0.1

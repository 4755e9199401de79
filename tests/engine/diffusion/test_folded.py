"""Folding the skips into the decoder half changes the order of sums and nothing else."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dragnoise.engine.backends.eager import FUSED_OPERATORS
from dragnoise.engine.diffusion.unet import Operators, Step, UNet, Up

OPERATORS = {"plain": Operators(), "fused": FUSED_OPERATORS}
every_operator = pytest.mark.parametrize("operators", OPERATORS.values(), ids=OPERATORS)


def network(dtype: torch.dtype, operators: Operators | None = None, **changes: Any) -> UNet:
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
    return UNet(built.to(dtype).requires_grad_(False).eval(), operators)


def both(unet: UNet, size: tuple[int, int], output: bool = True) -> list[tuple[Up, Tensor, Tensor]]:
    """(what is seen, its gradient at the bottleneck, the bottleneck), plain and folded."""
    torch.manual_seed(1)
    dtype = unet.dtype
    latent, text = torch.randn(1, 4, *size).to(dtype), torch.randn(1, 9, 24).to(dtype)
    down = unet.down(latent, unet.step(481, text))
    bottleneck = unet.middle(down)
    moved = bottleneck + 0.3 * torch.randn(bottleneck.shape).to(dtype)
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


@every_operator
@pytest.mark.parametrize("output", [True, False], ids=["whole", "to the features"])
@pytest.mark.parametrize("size", [(16, 16), (24, 16), (13, 19)])
def test_float64(size: tuple[int, int], output: bool, operators: Operators) -> None:
    (plain, gradient, _), _ = both(network(torch.float64), size, output)
    _, (folded, folded_gradient, _) = both(network(torch.float64, operators), size, output)
    assert plain.features is not None
    assert folded.features is not None
    assert relative(plain.features, folded.features) < 1e-12
    assert relative(gradient, folded_gradient) < 1e-12
    assert (plain.output is None) == (folded.output is None) == (not output)
    if plain.output is not None and folded.output is not None:
        assert relative(plain.output, folded.output) < 1e-12


@pytest.mark.parametrize("changes", [{}, {"resnet_out_scale_factor": 2.0}], ids=["usual", "scaled"])
def test_fused_operators_compute_the_same(changes: dict[str, Any]) -> None:
    """Biases, sums and neighbours that a normalisation adds up are those of PyTorch's operators."""
    plain, fused = (
        network(torch.float64, operators, **changes) for operators in OPERATORS.values()
    )
    (up, gradient, _), _ = both(plain, (13, 19))
    (mine, own_gradient, _), _ = both(fused, (13, 19))
    assert up.features is not None
    assert mine.features is not None
    assert relative(up.features, mine.features) < 1e-12
    assert relative(gradient, own_gradient) < 1e-12
    latents, texts = torch.randn(3, 4, 16, 16).double(), torch.randn(3, 9, 24).double()
    with torch.no_grad():
        for timesteps in ((481,), (481, 1, 701)):
            theirs, ours = (
                unet(latents, each_of(unet, timesteps, texts)) for unet in (plain, fused)
            )
            assert relative(theirs, ours) < 1e-12
    leaves = [latents[:1].clone().requires_grad_() for _ in range(2)]
    seen = [
        unet.features(leaf, unet.step(481, texts[:1]), 2).features
        for unet, leaf in zip((plain, fused), leaves, strict=True)
    ]
    slopes = [
        torch.autograd.grad(features.sum(), leaf)[0]
        for features, leaf in zip(seen, leaves, strict=True)
        if features is not None
    ]
    assert relative(*slopes) < 1e-12


def each_of(unet: UNet, timesteps: tuple[int, ...], texts: Tensor) -> Step:
    """Return a step for all entries of a batch, or one for each."""
    steps = [unet.step(timestep, texts) for timestep in timesteps]
    if len(steps) == 1:
        return steps[0]
    return replace(steps[0], times=torch.stack([step.times for step in steps]))


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
def test_other_structures(changes: dict[str, Any]) -> None:
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

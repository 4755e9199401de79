"""A drag in bfloat16 sees the changes that float32 sees: layers are computed from their anchors."""

from functools import cache

import pytest
import torch
from torch import Tensor

from dragnoise.bench.measure.precision import measure, precision_table
from dragnoise.engine.backends.eager import FUSED_OPERATORS
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import FEATURE_BLOCK, ConvWeight, Folded, Operators, UNet
from dragnoise.engine.diffusion.unet.anchored import Anchors
from golden_cases import MODEL

FIRST_UPDATE = 0.02
"""The learning rate: Adam's first update moves every value by so much."""


@cache
def model(dtype: str) -> Model:
    return load(MODEL, device="cpu", dtype=dtype)


@cache
def latent_and_text() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    return torch.randn(1, 4, 32, 32, generator=random), torch.randn(1, 77, 32, generator=random)


@cache
def start_of_drag() -> Tensor:
    unet = model("float32").unet
    latent, text = latent_and_text()
    return unet.middle(unet.down(latent, unet.step(681, text)))


def network(dtype: str, fused: bool = False) -> UNet:
    """Return the network, by PyTorch's operators or by those that CUDA has."""
    unet = model(dtype).unet
    return UNet(unet.network, FUSED_OPERATORS) if fused else unet


def passes(
    dtype: str, anchored: bool, fused: bool = False
) -> tuple[Folded, list[Tensor], list[Tensor]]:
    """Return the skips, and features and outputs before and after a first update."""
    unet = network(dtype, fused)
    latent, text = latent_and_text()
    down = unet.down(latent, unet.step(681, text))
    start = start_of_drag()
    folded = unet.folded(down, start if anchored else None)
    signs = torch.randn(start.shape, generator=torch.Generator().manual_seed(5)).sign()
    features, outputs = [], []
    for bottleneck in (start, start + FIRST_UPDATE * signs):
        up = unet.decode(folded, bottleneck, FEATURE_BLOCK)
        assert up.features is not None
        assert up.output is not None
        features.append(up.features.float())
        outputs.append(up.output.float())
    return folded, features, outputs


def error_of_change(dtype: str, anchored: bool, fused: bool = False) -> tuple[float, float]:
    """Return how far the change of features and of output is from float32's, relatively (L2)."""
    found, exact = passes(dtype, anchored, fused)[1:], passes("float32", anchored)[1:]
    errors = []
    for (before, after), (true_before, true_after) in zip(found, exact, strict=True):
        true = true_after - true_before
        errors.append(float((after - before - true).norm() / true.norm()))
    return errors[0], errors[1]


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_change_survives_the_rounding_of_bfloat16(fused: bool) -> None:
    features, output = error_of_change("bfloat16", anchored=True, fused=fused)
    assert features < 0.05
    assert output < 0.15


def test_without_anchors_it_is_lost() -> None:
    """The reason of it all: most of the change is the rounding of two passes."""
    features, output = error_of_change("bfloat16", anchored=False)
    assert features > 0.2
    assert output > 0.5


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_the_same_bottleneck_gives_the_same_bits(fused: bool) -> None:
    """The mask term's first gradient is sign(0) = 0 only so."""
    unet = network("bfloat16", fused)
    folded, features, outputs = passes("bfloat16", anchored=True, fused=fused)
    again = unet.decode(folded, start_of_drag(), FEATURE_BLOCK)
    assert again.features is not None
    assert again.output is not None
    assert torch.equal(again.features, features[0])
    assert torch.equal(again.output, outputs[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_fine_precisions_are_computed_as_they_are(dtype: torch.dtype) -> None:
    plain = Operators()
    assert Anchors(dtype).operators(plain) is plain


def test_float32_keeps_no_anchors() -> None:
    folded, _, _ = passes("float32", anchored=True)
    assert folded.anchors == ()


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_layer_returns_its_anchor_where_nothing_changed(kind: str) -> None:
    anchors = Anchors(torch.bfloat16)
    operators = anchors.operators(Operators())
    random = torch.Generator().manual_seed(0)
    shape = (6, 8, 3, 3) if kind == "conv" else (6, 8)
    weight = torch.randn(shape, generator=random).bfloat16()
    bias = torch.randn(6, generator=random).bfloat16()
    if kind == "conv":
        layer = operators.conv(ConvWeight.of(weight), bias, 1, 1)
        hidden = torch.randn(1, 8, 5, 5, generator=random).bfloat16()
    else:
        layer = operators.linear(weight, bias)
        hidden = torch.randn(1, 5, 8, generator=random).bfloat16()
    plain = layer(hidden)
    with anchors.recording() as recorded:
        assert torch.equal(layer(hidden.float()), plain.float())
    moved = hidden.float() + 1e-3
    with anchors.replaying(tuple(recorded)):
        change = layer(moved) - plain.float()
    exact = Operators()
    build = exact.conv(ConvWeight.of(weight.float()), None, 1, 1) if kind == "conv" else None
    true = (build or exact.linear(weight.float(), None))(torch.full_like(moved, 1e-3))
    assert float((change - true).norm() / true.norm()) < 1e-2
    assert torch.equal(layer(hidden), plain), "without anchors a layer runs as it is"


def test_losses_of_a_bfloat16_drag_are_float32s() -> None:
    """Within 1 %; with every map rounded the mask term adds 5 % at the first update."""
    settings = {"iterations": 3, "steps": 10, "strength": 0.2}
    found = measure("golden", torch.device("cpu"), 128, settings, ["face"])
    rounded, anchored = found["distances"]
    assert (rounded["way"], anchored["way"]) == ("rounded", "anchored")
    assert anchored["largest_loss"] < 0.01 < 0.03 < rounded["first_loss"]
    assert anchored["handles_differ_at"] is None
    table = precision_table(found)
    assert [len(row) for row in table] == [8, 8, 8]

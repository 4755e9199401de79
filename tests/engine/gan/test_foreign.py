"""Generators in others' layouts: the same pictures, and nothing but tensors out of a pickle."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dragnoise.engine.cli import main
from dragnoise.engine.errors import ModelError
from dragnoise.engine.gan.folder import load_generator
from dragnoise.engine.gan.foreign import generator_of
from generators import SMALL, generator_model

Tensors = dict[str, Tensor]


def as_nvidia(state: Tensors) -> Tensors:
    """Return the tensors as stylegan2-ada-pytorch's `G_ema.state_dict()` names them."""
    found: Tensors = {
        "mapping.w_avg": state["mean"],
        "synthesis.b4.const": state["synthesis.start"],
    }
    for name, value in state.items():
        if part := re.fullmatch(r"mapping\.layers\.(\d+)\.(\w+)", name):
            found[f"mapping.fc{part[1]}.{part[2]}"] = value
        elif part := re.fullmatch(r"synthesis\.(layers|colours)\.(\d+)\.(.+)", name):
            number = int(part[2])
            block = number if part[1] == "colours" else (number + 1) // 2
            layer = "torgb" if part[1] == "colours" else f"conv{(number + 1) % 2}"
            ending = part[3].replace("style.", "affine.")
            ending = {"strength": "noise_strength", "noise": "noise_const"}.get(ending, ending)
            shaped = value[0, 0] if ending == "noise_const" else value
            found[f"synthesis.b{4 << block}.{layer}.{ending}"] = shaped
    for block in range(4):
        found[f"synthesis.b{4 << block}.resample_filter"] = torch.ones(4, 4)
    return found


def as_rosinality(state: Tensors) -> dict[str, object]:
    """Return the tensors as rosinality's checkpoint has them."""
    found: Tensors = {"input.input": state["synthesis.start"][None]}
    for name, value in state.items():
        if part := re.fullmatch(r"mapping\.layers\.(\d+)\.(\w+)", name):
            found[f"style.{int(part[1]) + 1}.{part[2]}"] = value
        elif part := re.fullmatch(r"synthesis\.(layers|colours)\.(\d+)\.(.+)", name):
            number, ending = int(part[2]), part[3]
            if ending == "noise":
                found[f"noises.noise_{number}"] = value
                continue
            plain, several = ("to_rgb1", "to_rgbs") if part[1] == "colours" else ("conv1", "convs")
            owner = plain if number == 0 else f"{several}.{number - 1}"
            if ending == "bias":
                found[f"{owner}.bias" if part[1] == "colours" else f"{owner}.activate.bias"] = (
                    value.view(1, 3, 1, 1) if part[1] == "colours" else value
                )
            elif ending == "strength":
                found[f"{owner}.noise.weight"] = value.view(1)
            elif ending == "weight":
                found[f"{owner}.conv.weight"] = value[None]
            else:
                found[f"{owner}.conv.{ending.replace('style', 'modulation')}"] = value
    found["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    found["to_rgbs.0.upsample.kernel"] = torch.ones(4, 4)
    return {"g_ema": found, "latent_avg": state["mean"], "d": {"x": torch.ones(1)}, "iter": 3}


@pytest.mark.parametrize(
    ("layout", "ending"), [(as_nvidia, ".safetensors"), (as_rosinality, ".pt")]
)
@pytest.mark.filterwarnings("ignore:The given NumPy array")
def test_a_converted_generator_makes_the_same_pictures(
    layout: Callable[[Tensors], object], ending: str, tmp_path: Path
) -> None:
    own = generator_model().network
    tensors: Any = layout(own.state_dict())
    weights, folder = tmp_path / f"weights{ending}", tmp_path / "generator"
    if ending == ".pt":
        torch.save(tensors, weights)
    else:
        save_file({name: value.contiguous() for name, value in tensors.items()}, weights)
    assert main(["convert-generator", str(weights), "-o", str(folder)]) == 0
    model = load_generator(folder)
    assert model.architecture == SMALL
    rows = own.rows(torch.randn(2, SMALL.z), 0.7)
    torch.testing.assert_close(model.network(rows), own(rows), rtol=0, atol=0)
    torch.testing.assert_close(model.network.mean, own.mean, rtol=0, atol=0)
    assert model.digest == generator_model().digest


class Harmful:
    """What runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = as_nvidia(generator_model().network.state_dict()) | {"more": Harmful(tmp_path / "mark")}
    torch.save(state, tmp_path / "weights.pt")
    code = main(["convert-generator", str(tmp_path / "weights.pt"), "-o", str(tmp_path / "out")])
    assert code == 2
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "out").exists()
    told = capsys.readouterr().err
    assert "not a pickled network" in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"synthesis.b4.const": None}, "not a StyleGAN2 generator's weights in a known layout"),
        ({"synthesis.b8.conv1.bias": None}, "lack synthesis.layers.2.bias"),
        ({"synthesis.b8.conv9.bias": torch.ones(3)}, "no part of an unconditional"),
        ({"synthesis.b8.conv1.bias": torch.ones(3)}, r"has shape \[3\], not \[8\]"),
        ({"mapping.fc0.weight": None}, "lack the mapping network"),
        ({"mapping.embed.weight": torch.ones(3)}, "no part of an unconditional"),
    ],
)
def test_what_is_no_such_generator_is_refused(change: dict[str, Tensor | None], said: str) -> None:
    tensors = as_nvidia(generator_model().network.state_dict())
    for name, value in change.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    with pytest.raises(ModelError, match=said):
        generator_of(tensors)

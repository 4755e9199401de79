"""Adapters of others, files that are wrong, and weights that stay right while they change."""

import copy
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from dragnoise.engine import Adapter, AdapterError, ConfigError, Editor
from dragnoise.engine.diffusion.lora.adapter import FILE, AdapterUse, projections
from dragnoise.engine.diffusion.weights import Weights
from golden_cases import MODEL

SETTINGS: dict[str, dict[str, Any]] = {
    "alpha": {"lora_alpha": 8},
    "rslora": {"lora_alpha": 8, "use_rslora": True},
    "alpha_pattern": {"lora_alpha": 4, "alpha_pattern": {"attn2.to_q": 16}},
    "rank_pattern": {"lora_alpha": 6, "rank_pattern": {"attn2.to_q": 2}},
}


@pytest.fixture
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu")


@pytest.fixture
def network(editor: Editor) -> UNet2DConditionModel:
    return copy.deepcopy(editor.model.unet.network).requires_grad_(False)


def config_of(settings: dict[str, Any]) -> LoraConfig:
    return LoraConfig(
        r=4,
        target_modules=["to_q", "to_k", "to_v", "to_out.0"],
        init_lora_weights=False,
        **settings,
    )


def assert_changes(adapter: Adapter, network: Any) -> None:
    """Each layer by what PEFT says it changes it."""
    layers = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in network.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert layers.keys() == {name for name, _, _ in adapter.matrices}
    for name, down, up in adapter.matrices:
        torch.testing.assert_close(up @ down, layers[name].detach(), rtol=1e-5, atol=1e-6)


def first_layer(editor: Editor) -> tuple[str, Tensor, Tensor]:
    name, layer = min(projections(editor.model.unet.network).items())
    return name, torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2)


# Files


@pytest.mark.parametrize("which", SETTINGS)
def test_what_diffusers_saves_changes_layers_as_peft_says(
    which: str, network: UNet2DConditionModel, tmp_path: Path
) -> None:
    network.add_adapter(config_of(SETTINGS[which]))
    network.save_lora_adapter(tmp_path)
    assert_changes(Adapter.load(tmp_path), network)


@pytest.mark.parametrize("which", SETTINGS)
def test_what_peft_saves_changes_layers_as_peft_says(
    which: str, network: UNet2DConditionModel, tmp_path: Path
) -> None:
    """As a folder, and as the file in it: its alpha stands in a file beside it."""
    wrapped = get_peft_model(network, config_of(SETTINGS[which]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks the Hub for the base model's vocabulary
        wrapped.save_pretrained(str(tmp_path))
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        assert_changes(Adapter.load(path), wrapped)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "must be a JSON object, got list"),
        ('{"lora_alpha": null}', "must be a number, got None"),
        ('{"lora_alpha": "4"}', "must be a number, got '4'"),
        ('{"lora_alpha": NaN}', "is not finite"),
        ('{"alpha_pattern": {"(a+)+": 4}}', r"alpha_pattern has '\(a\+\)\+'"),
        ('{"alpha_pattern": ["to_q"]}', "alpha_pattern has"),
    ],
)
def test_settings_that_are_wrong(told: str, said: str, editor: Editor, tmp_path: Path) -> None:
    name, down, up = first_layer(editor)
    tensors = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / FILE, metadata={"lora_adapter_metadata": told})
    with pytest.raises(AdapterError, match=said):
        Adapter.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"{0}.lora_A.weight": (2, 16), "{0}.lora_B.weight": (16, 2)}, "more than once"),
        ({"unet.{0}.lora_A.weight": (0, 16), "unet.{0}.lora_B.weight": (16, 0)}, "has matrices"),
        ({"unet.{0}.alpha": (2,)}, "must be a number, got"),
        (
            {"text_encoder.a.lora_A.weight": (2, 4), "text_encoder.a.lora_B.weight": (4, 2)},
            "it has 'text_encoder.a",
        ),
    ],
)
def test_tensors_that_are_wrong(
    change: dict[str, Any], said: str, editor: Editor, tmp_path: Path
) -> None:
    name, down, up = first_layer(editor)
    tensors = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    tensors |= {key.format(name): torch.ones(shape) for key, shape in change.items()}
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(AdapterError, match=said):
        Adapter.load(tmp_path)


def test_a_training_that_failed_is_not_loaded(editor: Editor, tmp_path: Path) -> None:
    name, down, up = first_layer(editor)
    file = Adapter(((name, down * math.nan, up),)).save(tmp_path / FILE)
    with pytest.raises(AdapterError, match="is not finite; its training has failed"):
        Adapter.load(file)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, "1", None, True])
def test_a_scale_that_is_none(scale: Any) -> None:
    with pytest.raises(ConfigError, match="scale must be a finite number, got"):
        AdapterUse(None, scale)


# Merging


def test_no_layer_twice(editor: Editor) -> None:
    layer = first_layer(editor)
    with pytest.raises(AdapterError, match=f"changes {layer[0]} more than once"):
        Adapter((layer, layer))


def test_interrupted_while_weights_change_they_come_back(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next to come finds the weights as they were loaded.

    Interrupted at the first and at a later layer, and while the former adapter is taken out.
    """
    weights = {
        name: weight.clone() for name, weight in editor.model.unet.network.named_parameters()
    }
    names = sorted(projections(editor.model.unet.network))[:3]
    layers = {name: projections(editor.model.unet.network)[name] for name in names}
    one, other = (
        Adapter(
            tuple(
                (name, torch.ones(1, m.in_features), by * torch.ones(m.out_features, 1))
                for name, m in layers.items()
            )
        )
        for by in (1.0, 2.0)
    )
    real = Tensor.copy_
    for fail_at in range(1, 7):
        with editor.adapters.active(AdapterUse(one)):
            pass
        calls: Iterator[int] = iter(range(1, 100))

        def copy_(
            self: Tensor, *given: Any, calls: Iterator[int] = calls, at: int = fail_at
        ) -> Tensor:
            if next(calls) == at:
                raise MemoryError("no room")
            return real(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "copy_", copy_)
            with (
                pytest.raises(MemoryError, match="no room"),
                editor.adapters.active(AdapterUse(other)),
            ):
                pytest.fail("entered with weights half changed")
        with editor.adapters.active(AdapterUse()):
            assert all(
                torch.equal(now, weights[name])
                for name, now in editor.model.unet.network.named_parameters()
            )


def two_uses(editor: Editor) -> tuple[AdapterUse, AdapterUse]:
    name, down, up = first_layer(editor)
    return AdapterUse(Adapter(((name, down, up),))), AdapterUse(Adapter(((name, down, 2 * up),)))


def test_inside_another_the_outer_one_comes_back(editor: Editor) -> None:
    """A callback of an edit may edit, with an adapter of its own or none."""
    outer, inner = two_uses(editor)
    merged = editor.model.weights
    with editor.adapters.active(outer):
        with editor.adapters.active(inner), editor.adapters.active(AdapterUse()):
            assert merged.merged is None
        assert merged.merged == outer.key
        with editor.adapters.active(outer):
            pass
        assert merged.merged == outer.key
    assert merged.merged == outer.key, "weights stay merged until others are wanted"
    with editor.adapters.active(AdapterUse()):
        assert merged.merged is None


def test_the_outer_one_comes_back_where_the_inner_one_fails(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While weights change, and inside: a callback may go on from either."""
    outer, inner = two_uses(editor)
    layer = projections(editor.model.unet.network)[first_layer(editor)[0]]
    real = Tensor.copy_
    with editor.adapters.active(outer):
        weight = layer.weight.clone()
        calls = iter(range(10))

        def copy_(self: Tensor, *given: Any) -> Tensor:
            if next(calls) == 1:
                raise MemoryError("no room")
            return real(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "copy_", copy_)
            with pytest.raises(MemoryError), editor.adapters.active(inner):
                pytest.fail("entered with weights half changed")
        assert torch.equal(layer.weight, weight)
        with pytest.raises(KeyError), editor.adapters.active(inner):
            raise KeyError
        assert torch.equal(layer.weight, weight)
        for wrong in (Adapter((("no_such_layer", torch.ones(1, 2), torch.ones(2, 1)),)),):
            with pytest.raises(AdapterError), editor.adapters.active(AdapterUse(wrong)):
                pytest.fail("entered with another model's adapter")
        assert torch.equal(layer.weight, weight)
        assert editor.model.weights.merged == outer.key


def test_a_plain_edit_never_reads_all_weights(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a merge, a cache or an export needs the digest: it takes a second a gigabyte."""
    monkeypatch.setattr(Weights, "_read", lambda weights: pytest.fail("read"))
    with editor.adapters.active(AdapterUse()):
        pass

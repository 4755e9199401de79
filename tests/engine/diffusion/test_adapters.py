"""Adapters of others, files that are wrong, and weights that stay right while they change."""

import copy
import json
import math
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapter_files import SPELLINGS, adapted, changes_of, kohya, write
from dragnoise.engine import Adapter, AdapterError, ConfigError, Editor, InputWarning
from dragnoise.engine.diffusion.lora.adapter import FILE, AdapterUse, projections
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.diffusion.weights import Weights
from golden_cases import MODEL

PICTURE = np.zeros((64, 64, 3), np.uint8)

SETTINGS: dict[str, dict[str, Any]] = {
    "alpha": {"lora_alpha": 8},
    "rslora": {"lora_alpha": 8, "use_rslora": True},
    "alpha_pattern": {"lora_alpha": 4, "alpha_pattern": {"attn2.to_q": 16}},
    "rank_pattern": {"lora_alpha": 6, "rank_pattern": {"attn2.to_q": 2}},
}


@pytest.fixture(scope="module")
def shared_editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu")


@pytest.fixture
def editor(shared_editor: Editor) -> Iterator[Editor]:
    yield shared_editor
    with shared_editor.adapters.active(AdapterUse()):
        pass


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
    layers = changes_of(network)
    assert layers.keys() == {name for name, _, _ in adapter.matrices}
    for name, down, up in adapter.matrices:
        torch.testing.assert_close(up @ down, layers[name], rtol=1e-5, atol=1e-6)


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
        ({"unet.{0}.lora_A.other.weight": (2, 16)}, "more than once, by"),
        ({"unet.x.lora_A.weight": (2, 4)}, "it has 'unet.x'"),
        ({"unet.x.alpha": ()}, "it has 'unet.x'"),
        ({"unet.x\ny.weight": (2,)}, r"it has 'unet\.x.*ny\.weight'$"),
        ({"unet.x.lora_A.weight": (2, 4, 4), "unet.x.lora_B.weight": (4, 2)}, "must be a matrix"),
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


@pytest.mark.parametrize("which", SPELLINGS)
def test_kohyas_files_change_layers_as_diffusers_says(
    which: str, network: UNet2DConditionModel, editor: Editor, tmp_path: Path
) -> None:
    """With alpha and 1 x 1 convolutions; read by diffusers' own loader, and by us."""
    tensors = SPELLINGS[which](adapted(network, even=True))
    file = write(tensors, tmp_path / "last.safetensors", ss_base_model_version="sd_v1")
    theirs = copy.deepcopy(editor.model.unet.network)
    state, alphas = StableDiffusionPipeline.lora_state_dict(str(file), unet_config=theirs.config)
    StableDiffusionPipeline.load_lora_into_unet(
        state, network_alphas=alphas, unet=theirs, adapter_name="default"
    )
    for expected in (theirs, network):
        for path in (file, tmp_path):
            assert_changes(Adapter.load(path), expected)


@pytest.mark.parametrize("which", SPELLINGS)
def test_kohyas_layers_may_differ_in_rank_and_alpha(
    which: str, network: UNet2DConditionModel, tmp_path: Path
) -> None:
    """diffusers 0.42.1 loses the alpha of an attention's layers then; PEFT tells what is right."""
    file = write(SPELLINGS[which](adapted(network)), tmp_path / "last.safetensors")
    assert_changes(Adapter.load(file), network)


def test_a_kohya_file_merged_is_pefts_network(
    network: UNet2DConditionModel, editor: Editor, tmp_path: Path
) -> None:
    """Also after it went through our own file, and it is taken out bit for bit."""
    file = write(kohya(adapted(network)), tmp_path / "last.SAFETENSORS")
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    text = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(4))

    def output() -> Tensor:
        unet = editor.model.unet
        with torch.no_grad():
            return unet(latent, unet.step(481, text))

    plain = output()
    with torch.no_grad():
        expected = network(latent, 481, encoder_hidden_states=text).sample
    read = Adapter.load(file)
    for adapter in (read, Adapter.load(read.save(tmp_path / "ours.safetensors"))):
        with editor.adapters.active(AdapterUse(adapter)):
            torch.testing.assert_close(output(), expected, rtol=1e-4, atol=1e-4)
        with editor.adapters.active(AdapterUse()):
            assert torch.equal(output(), plain)


@pytest.mark.parametrize("backend", ["packed", "eager"])
def test_one_by_one_convolutions_are_merged_under_packed_weights(
    backend: str, network: UNet2DConditionModel, tmp_path: Path
) -> None:
    """In bfloat16, where linear maps are packed too, and are packed again when they change."""
    one = Editor.from_pretrained(MODEL, device="cpu", backend=backend, dtype="bfloat16")
    unet = one.model.unet
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    text = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(4))

    def output(unet: UNet) -> Tensor:
        with torch.no_grad():
            return unet(latent, unet.step(481, text))

    plain = output(unet)
    file = write(kohya(adapted(network)), tmp_path / "last.safetensors")
    with one.adapters.active(AdapterUse(Adapter.load(file))):
        merged = output(unet)
        fresh = UNet(copy.deepcopy(unet.network), unet.operators)
        assert torch.equal(merged, output(fresh))
        assert not torch.equal(merged, plain)
    with one.adapters.active(AdapterUse()):
        assert torch.equal(output(unet), plain)


@pytest.mark.parametrize("name", ["lora_te_text_model_x", "lora_te1_x", "text_encoder.x"])
def test_what_is_of_the_text_encoder_is_left_out(
    name: str, network: UNet2DConditionModel, tmp_path: Path
) -> None:
    tensors = kohya(adapted(network))
    of_text = {
        f"{name}.lora_down.weight": torch.ones(2, 4),
        f"{name}.lora_up.weight": torch.ones(4, 2),
        f"{name}.alpha": torch.tensor(1.0),
    }
    file = write(tensors | of_text, tmp_path / "both.safetensors")
    with pytest.warns(InputWarning, match=f"1 layers of the text encoder .{name}.*left out"):
        assert_changes(Adapter.load(file), network)
    with pytest.raises(AdapterError, match=f"linear layers: it has '{name}"):
        Adapter.load(write(of_text, tmp_path / "text.safetensors"))


LAYER = "lora_unet_mid_block_attentions_0_proj_in"
PAIR = {f"{LAYER}.lora_down.weight": (2, 4), f"{LAYER}.lora_up.weight": (4, 2)}
CONV = "lora_unet_mid_block_resnets_0_conv1"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (PAIR | {f"{LAYER}.dora_scale": (4, 1)}, "is DoRA"),
        (PAIR | {"unet.a.lora_magnitude_vector": (4,)}, "is DoRA"),
        ({f"{CONV}.lora_down.weight": (2, 4, 3, 3), f"{CONV}.lora_up.weight": (4, 2, 1, 1)},
         r"is LoCon: it changes a convolution \(mid_block.resnets.0.conv1, 3x3\)"),
        ({f"{LAYER}.lora_down.weight": (2, 4, 3, 3), f"{LAYER}.lora_up.weight": (4, 2, 1, 1)},
         "is LoCon"),
        (PAIR | {f"{CONV}.lora_mid.weight": (2, 2, 3, 3)}, "is LoCon"),
        ({f"{LAYER}.hada_w1_a": (4, 2), f"{LAYER}.hada_w1_b": (2, 4)}, "is LoHa"),
        ({f"{LAYER}.lokr_w1": (4, 2), f"{LAYER}.lokr_w2_a": (2, 4)}, "is LoKr"),
        ({f"{LAYER}.oft_blocks": (4, 2, 2)}, "is OFT or BOFT"),
        ({"base_model.model.a.oft_R.default.weight": (4, 2, 2)}, "is OFT or BOFT"),
        ({f"{LAYER}.a1.weight": (4, 2)}, "is GLoRA"),
        ({f"{LAYER}.diff": (4, 4)}, "is whole differences"),
        ({f"{LAYER}.weight": (4,), f"{LAYER}.on_input": ()}, "is IA3"),
        ({"base_model.model.a.ia3_l": (4,)}, "is IA3"),
        ({"emb_params": (2, 4)}, "is a textual inversion"),
        ({"cond_stage_model.transformer.a.weight": (4,)}, "is a whole model"),
        (PAIR | {"lora_te2_a.lora_down.weight": (2, 4)}, "another model, Stable Diffusion XL"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (2, 4)},
         r"another model, a transformer \(Flux"),
        ({"transformer.a.lora_A.weight": (2, 4)}, r"another model, a transformer \(Flux"),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_by_name(
    tensors: dict[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    """And told what can be done."""
    file = write({name: torch.ones(shape) for name, shape in tensors.items()}, tmp_path / FILE)
    with pytest.raises(AdapterError, match=said) as refused:
        Adapter.load(file)
    told = str(refused.value)
    assert "another model" in told or "merge it into the model's weights" in told


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "is of kind DoRA"),
        ({"peft_type": "LOKR"}, "is of kind LOKR"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the model's own weights too"),
        ({"use_rslora": "false"}, "must have true or false for use_rslora, got 'false'"),
        ({"lora_alpha": 10**400}, "must be a number, got 1000"),
        ({"lora_alpha": 1e308}, r"must be a number, got 1e\+308"),
        ({"lora_alpha": [1]}, "must be a number"),
    ],
)
def test_settings_of_other_kinds(
    settings: dict[str, Any], said: str, editor: Editor, tmp_path: Path
) -> None:
    name, down, up = first_layer(editor)
    tensors = {f"unet.{name}.lora_A.weight": 9 * down, f"unet.{name}.lora_B.weight": 9 * up}
    write(tensors, tmp_path / FILE, lora_adapter_metadata=json.dumps(settings))
    with pytest.raises(AdapterError, match=said):
        Adapter.load(tmp_path)


@pytest.mark.parametrize("width", [768, 1024, 2048])
def test_another_familys_adapter_is_told_by_its_text(width: int, editor: Editor) -> None:
    """Refused when the session is opened, not at its first drag."""
    layers = projections(editor.model.unet.network)
    name = next(name for name in sorted(layers) if name.endswith("attn2.to_k"))
    wide = Adapter(((name, torch.ones(2, width), torch.ones(layers[name].out_features, 2)),))
    said = rf"made for another model, Stable Diffusion .*is {width} wide, this model's 32"
    with pytest.raises(AdapterError, match=said):
        editor.open(PICTURE, adapter=wide)
    session = editor.open(PICTURE)
    with pytest.raises(AdapterError, match=said):
        session.use_adapter(wide)
    assert session.adapter is None


@pytest.mark.parametrize(
    ("value", "scale"),
    [(3e38, 1.0), (1e18, 1.0), (1.0, 1e30), (1.0, -1e308), (math.nan, 1.0), (math.inf, 0.5)],
)
def test_numbers_that_no_weight_can_take(value: float, scale: float, editor: Editor) -> None:
    """Finite ones with a product that is not, too; nothing is merged."""
    name, down, up = first_layer(editor)
    adapter = Adapter(((name, value * down, value * up),))
    before = {name: weight.clone() for name, weight in editor.model.unet.network.named_parameters()}
    with pytest.raises(AdapterError, match=r"changes .* by up to .* at scale .*lower the scale"):
        editor.open(PICTURE, adapter=adapter, adapter_scale=scale)
    with pytest.raises(AdapterError), editor.adapters.active(AdapterUse(adapter, scale)):
        pytest.fail("entered with numbers that are none")
    now = editor.model.unet.network.named_parameters()
    assert all(torch.equal(weight, before[name]) for name, weight in now)


@pytest.mark.parametrize(
    "dtype", [torch.complex64, torch.int64, torch.int8, torch.uint8, torch.bool]
)
def test_numbers_that_are_no_real_floats(
    dtype: torch.dtype, editor: Editor, tmp_path: Path
) -> None:
    name, down, up = first_layer(editor)
    tensors = {f"unet.{name}.lora_A.weight": down.to(dtype), f"unet.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(AdapterError, match=f"is {str(dtype)[6:]}; an adapter's matrices are real"):
        Adapter.load(tmp_path)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_floats_of_any_width_are_read(dtype: torch.dtype, editor: Editor, tmp_path: Path) -> None:
    name, down, up = first_layer(editor)
    tensors = {"lora_A": down.to(dtype), "lora_B": up.to(dtype)}
    save_file({f"unet.{name}.{k}.weight": v for k, v in tensors.items()}, tmp_path / FILE)
    assert Adapter.load(tmp_path).digest == Adapter(((name, down, up),)).digest


def test_a_pickle_is_refused_with_the_command_that_converts_it(
    editor: Editor, tmp_path: Path
) -> None:
    name, down, up = first_layer(editor)
    tensors = {f"unet.{name}.lora_A.weight": down.t(), f"unet.{name}.lora_B.weight": up.t()}
    tensors = {name: tensor.t() for name, tensor in tensors.items()}
    torch.save(tensors, tmp_path / "pytorch_lora_weights.bin")
    for path in (tmp_path, tmp_path / "pytorch_lora_weights.bin"):
        with pytest.raises(AdapterError, match="is a pickle, which can run code") as refused:
            Adapter.load(path)
    code = str(refused.value).partition('-c "')[2].removesuffix('"')
    exec(code, {})  # noqa: S102 what a reader is told to run
    assert Adapter.load(tmp_path).digest == Adapter(((name, down, up),)).digest


def test_which_file_of_a_folder(editor: Editor, tmp_path: Path) -> None:
    """Whatever macOS left beside it, whatever case its name is in."""
    adapter = Adapter((first_layer(editor),))
    (tmp_path / f"._{FILE}").write_bytes(b"\0\5\x16\7")
    with pytest.raises(AdapterError, match=f"the folder has no {FILE}, and no other"):
        Adapter.load(tmp_path)
    adapter.save(tmp_path / "Last.SAFETENSORS")
    assert Adapter.load(tmp_path).digest == adapter.digest
    adapter.save(tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=r"and 2 other \.safetensors files; give the file"):
        Adapter.load(tmp_path)
    adapter.save(tmp_path / FILE.upper().replace("SAFETENSORS", "safetensors"))
    assert Adapter.load(tmp_path).digest == adapter.digest
    with pytest.raises(AdapterError, match="must be an Adapter or the path of one, got int"):
        editor.open(PICTURE, adapter=5)  # type: ignore[arg-type]


def test_what_was_read_stays_what_it_was(editor: Editor, tmp_path: Path) -> None:
    """A file that is written again in place, or cut to nothing (it was mapped once: SIGBUS)."""
    name, down, up = first_layer(editor)
    wide = Adapter(((name, down.repeat(512, 1), up.repeat(1, 512)),))
    file = wide.save(tmp_path / FILE)
    read = Adapter.load(file)
    content = file.read_bytes()
    with file.open("r+b") as again:
        again.write(bytes(len(content)))
    assert read.digest == wide.digest
    file.write_bytes(b"")
    assert torch.equal(read.matrices[0][1], wide.matrices[0][1])


def test_a_damaged_file_of_ours_is_refused_one_of_others_is_read(
    editor: Editor, tmp_path: Path
) -> None:
    adapter = Adapter((first_layer(editor),))
    raw = bytearray(adapter.save(tmp_path / FILE).read_bytes())
    assert all(adapter.save(tmp_path / FILE).read_bytes() == raw for _ in range(8)), "other bytes"
    raw[-1] ^= 1
    (tmp_path / FILE).write_bytes(raw)
    with pytest.raises(AdapterError, match="is damaged: its bytes are not those"):
        Adapter.load(tmp_path)
    tensors = load_file(adapter.save(tmp_path / FILE))
    save_file(tensors, tmp_path / FILE, metadata={"format": "pt"})
    assert Adapter.load(tmp_path).digest == adapter.digest


def test_one_that_changes_nothing_is_told(editor: Editor, tmp_path: Path) -> None:
    name, down, up = first_layer(editor)
    file = Adapter(((name, down, 0 * up),)).save(tmp_path / FILE)
    with pytest.warns(InputWarning, match="changes nothing: its matrices B"):
        Adapter.load(file)


def test_a_training_that_failed_is_not_loaded(editor: Editor, tmp_path: Path) -> None:
    name, down, up = first_layer(editor)
    file = Adapter(((name, down * math.nan, up),)).save(tmp_path / FILE)
    with pytest.raises(AdapterError, match="is not finite; its training has failed"):
        Adapter.load(file)


@pytest.mark.parametrize(
    "scale", [math.nan, math.inf, -math.inf, "1", None, True, 10**400, -(10**400), 1j, [1]]
)
def test_a_scale_that_is_none(scale: Any) -> None:
    with pytest.raises(ConfigError, match="scale must be a finite number, got"):
        AdapterUse(None, scale)


def test_a_scale_of_another_kind_is_the_same() -> None:
    for scale in (2, np.float32(2), np.int64(2), Fraction(2)):
        assert AdapterUse(None, scale).scale == 2.0  # type: ignore[arg-type]


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

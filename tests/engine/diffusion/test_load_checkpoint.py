"""A single file in Stable Diffusion's original layout is the folder that it was made from."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dragnoise.engine import DragConfig, Editor, ModelError
from dragnoise.engine.diffusion.load import load
from golden_cases import MODEL, Case
from host_modes import MODES
from original_layout import write_checkpoint
from same_models import assert_same_model
from small_models import sd2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(MODEL, tmp_path_factory.mktemp("checkpoint") / "model.safetensors")


def test_every_network_is_the_same(checkpoint: Path) -> None:
    model = load(checkpoint, device="cpu", config=MODEL)
    assert_same_model(model, load(MODEL, device="cpu"), "an orange disc")
    for network in (model.unet.network, model.vae, model.text_encoder):
        assert not network.training
        assert not any(weight.requires_grad or weight.is_meta for weight in network.parameters())


def test_an_edit_gives_the_same_image(checkpoint: Path) -> None:
    case = Case("dn01_short_early_stop")
    results = [
        editor.edit(
            case.image, case.said["points"], config=DragConfig(steps=10, strength=0.3, iterations=2)
        )
        for editor in (
            Editor.from_pretrained(checkpoint, config=MODEL, device="cpu"),
            Editor.from_pretrained(MODEL, device="cpu"),
        )
    ]
    pixels, others = (result.image.pixels.astype(int) for result in results)
    assert abs(pixels - others).max() <= 1  # rounding: see assert_same_model
    assert results[0].settings["model"] == str(checkpoint)


def test_half_precision_is_read_into_the_precision_asked_for(
    checkpoint: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half.safetensors"
    save_file(
        {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in load_file(checkpoint).items()
        },
        half,
    )
    model = load(half, device="cpu", config=MODEL)
    for network in (model.unet.network, model.vae, model.text_encoder):
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert torch.equal(
        model.unet.network.conv_in.weight,
        load(MODEL, device="cpu").unet.network.conv_in.weight.half().float(),
    )


@pytest.mark.parametrize("mode", ["default float64", "default float16"])
@pytest.mark.parametrize("family", ["1.x", "2.x"])
def test_the_process_has_another_default_dtype(family: str, mode: str, tmp_path: Path) -> None:
    """It is neither read nor changed, whatever is loaded: a folder, or one file."""
    folder = MODEL if family == "1.x" else sd2(tmp_path / "folder")
    file = write_checkpoint(folder, tmp_path / "model.safetensors")
    for source, config in ((folder, None), (file, folder)):
        expected = load(source, config=config, device="cpu")
        with MODES[mode]():
            before = torch.get_default_dtype()
            model = load(source, config=config, device="cpu")
            assert torch.get_default_dtype() == before != torch.float32
        assert model.digest == expected.digest
        assert torch.equal(model.schedule(50).alphas, expected.schedule(50).alphas)
        assert model.schedule(50).alphas.dtype == expected.schedule(50).alphas.dtype


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a failure where anything opens a connection."""
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_hub")
def test_without_a_configuration_it_says_to_give_one(checkpoint: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"model\.safetensors' holds weights alone .*; give config=FOLDER \(--model-con",
    ) as refused:
        load(checkpoint, device="cpu")
    assert "\n" not in str(refused.value)


def test_what_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    def refused(words: str, source: Path, config: Path) -> None:
        with pytest.raises(ModelError, match=words) as failed:
            load(source, device="cpu", config=config)
        assert "\n" not in str(failed.value)

    def rewritten(name: str, **changed: torch.Tensor | None) -> Path:
        tensors = {
            key: tensor for key, tensor in load_file(checkpoint).items() if key not in changed
        }
        save_file(
            tensors | {key: tensor for key, tensor in changed.items() if tensor is not None},
            tmp_path / name,
        )
        return tmp_path / name

    refused(
        "no configuration folder at .*nowhere'; give a diffusers folder",
        checkpoint,
        tmp_path / "nowhere",
    )
    refused("has no folder unet, vae", checkpoint, tmp_path)
    refused("is not a .safetensors file; convert it, or allow pickles", Path(__file__), MODEL)

    short = tmp_path / "short.safetensors"
    short.write_bytes(checkpoint.read_bytes()[:-1000])
    refused("short.safetensors' could not be loaded", short, MODEL)

    unet, vae, text = (
        "model.diffusion_model.input_blocks.0.0.bias",
        "first_stage_model.quant_conv.bias",
        "cond_stage_model.transformer.text_model.",
    )
    refused(
        "lack conv_in.bias; they do not belong",
        rewritten("unet.safetensors", **{unet: None}),
        MODEL,
    )
    refused(
        "lack quant_conv.bias; they do not belong",
        rewritten("vae.safetensors", **{vae: None}),
        MODEL,
    )
    refused(
        "lack .*final_layer_norm.bias; they",
        rewritten("text.safetensors", **{text + "final_layer_norm.bias": None}),
        MODEL,
    )
    refused(
        "have another shape for conv_in.bias",
        rewritten("shape.safetensors", **{unet: torch.zeros(17)}),
        MODEL,
    )

    other = tmp_path / "other.safetensors"
    save_file({"lora.weight": torch.zeros(3)}, other)
    refused(r"other.safetensors' lack .* and \d+ more; they do not belong", other, MODEL)

    inpainting = Path(shutil.copytree(MODEL, tmp_path / "inpainting"))
    settings = json.loads((inpainting / "unet" / "config.json").read_text())
    (inpainting / "unet" / "config.json").write_text(json.dumps(settings | {"in_channels": 9}))
    refused(r"it maps 9 channels to 4, not 4 to 4 \(an inpainting", checkpoint, inpainting)


def test_an_ending_in_capitals(checkpoint: Path, tmp_path: Path) -> None:
    loud = tmp_path / "MODEL.SAFETENSORS"
    loud.symlink_to(checkpoint)
    assert load(loud, device="cpu", config=MODEL).name == str(loud)


def test_a_pickled_checkpoint_is_read_only_when_allowed(checkpoint: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "model.ckpt"
    torch.save({"state_dict": load_file(checkpoint)}, pickled)
    with pytest.raises(ModelError, match=r"allow_pickle=True \(--allow-pickle\)"):
        load(pickled, device="cpu", config=MODEL)
    model = load(pickled, device="cpu", config=MODEL, allow_pickle=True)
    assert_same_model(model, load(MODEL, device="cpu"), "an orange disc")

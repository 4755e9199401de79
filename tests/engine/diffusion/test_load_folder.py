"""A folder becomes a model, or a refusal that says in one line what was seen and what to do."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from dragnoise.engine import ConfigError, DragConfig, Editor, ModelError
from dragnoise.engine.diffusion.load import EMBEDDED, load
from dragnoise.engine.diffusion.load.build import lay_out
from dragnoise.engine.stages import embed
from golden_cases import MODEL
from same_models import assert_same_model

UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model",
    "vae/diffusion_pytorch_model",
    "text_encoder/model",
)
WEIGHTS = (UNET, VAE, TEXT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def same_weights(a: Any, b: Any) -> bool:
    mine, yours = a.state_dict(), b.state_dict()
    return mine.keys() == yours.keys() and all(
        torch.equal(mine[name], yours[name]) for name in mine
    )


def rewrite(folder: Path, weights: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = folder / f"{weights}.safetensors"
    save_file(change(load_file(file)), file)


def configure(folder: Path, part: str, **settings: Any) -> None:
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def pickled(folder: Path) -> None:
    for weights in WEIGHTS:
        file = folder / f"{weights}.safetensors"
        torch.save(
            load_file(file),
            folder / (weights.replace("text_encoder/model", "text_encoder/pytorch_model") + ".bin"),
        )
        file.unlink()


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def no_words(folder: Path) -> None:
    write(folder, "tokenizer/vocab.json", "{}")
    write(folder, "tokenizer/merges.txt", "")


def cut_short(folder: Path, weights: str) -> None:
    file = folder / f"{weights}.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def wide_vae(folder: Path) -> None:
    configure(folder, "vae", latent_channels=16)
    AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae")).save_pretrained(
        folder / "vae"
    )


def wide_text(folder: Path) -> None:
    configure(folder, "text_encoder", hidden_size=48)
    CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")).save_pretrained(
        folder / "text_encoder"
    )


def refusal(source: Path, **how: Any) -> str:
    with pytest.raises((ModelError, ConfigError)) as refused:
        load(source, device="cpu", **how)
    return str(refused.value)


def test_a_folder_is_read_whole_and_frozen() -> None:
    model = load(MODEL, device="cpu")
    for network, weights in (
        (model.unet.network, UNET),
        (model.vae, VAE),
        (model.text_encoder, TEXT),
    ):
        stored = load_file(MODEL / f"{weights}.safetensors")
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, stored[name if name in stored else f"text_model.{name}"]), (
                name
            )
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
    assert (model.dtype, model.device, model.factor) == (torch.float32, torch.device("cpu"), 8)
    assert model.defaults == DragConfig()


def test_the_embedded_model_is_the_default_and_brings_its_settings() -> None:
    editor = Editor.from_pretrained(device="cpu")
    assert editor.model.name == str(EMBEDDED)
    assert editor.defaults == DragConfig.from_card(EMBEDDED / "drag.json")
    assert editor.defaults != DragConfig()
    assert editor.model.factor == 4
    assert same_weights(editor.model.unet.network, load(EMBEDDED, device="cpu").unet.network)


@pytest.mark.parametrize("variant", ["fp16", None], ids=["asked for", "found"])
def test_half_precision_files(folder: Path, variant: str | None) -> None:
    halves = {}
    for weights in WEIGHTS:
        rewrite(
            folder,
            weights,
            lambda tensors: {
                name: tensor.half() if tensor.is_floating_point() else tensor
                for name, tensor in tensors.items()
            },
        )
        halves[weights] = load_file(folder / f"{weights}.safetensors")
        (folder / f"{weights}.safetensors").rename(folder / f"{weights}.fp16.safetensors")
    model = load(folder, device="cpu", variant=variant)
    for name, tensor in model.unet.network.state_dict().items():
        assert torch.equal(tensor, halves[UNET][name].float()), name
    assert {
        weight.dtype
        for network in (model.unet.network, model.vae, model.text_encoder)
        for weight in network.parameters()
    } == {torch.float32}


def test_whole_precision_is_preferred_where_both_are_there(folder: Path) -> None:
    for weights in WEIGHTS:
        tensors = load_file(folder / f"{weights}.safetensors")
        save_file(
            {name: torch.zeros_like(tensor) for name, tensor in tensors.items()},
            folder / f"{weights}.fp16.safetensors",
        )
    assert same_weights(
        load(folder, device="cpu").unet.network, load(MODEL, device="cpu").unet.network
    )
    assert not load(folder, device="cpu", variant="fp16").unet.network.conv_in.weight.any()


def test_parts_of_a_variant_are_found_by_their_index(folder: Path) -> None:
    """The names are those that diffusers and transformers write themselves."""
    model = load(MODEL, device="cpu")
    for name, network, most in (
        ("unet", model.unet.network, "900KB"),
        ("vae", model.vae, "100KB"),
        ("text_encoder", model.text_encoder, "60KB"),
    ):
        shutil.rmtree(folder / name)
        network.save_pretrained(folder / name, variant="fp16", max_shard_size=most)
        assert list((folder / name).glob("*00002-of-*")), name
        assert list((folder / name).glob("*index*.json")), name
    assert same_weights(load(folder, device="cpu").unet.network, model.unet.network)
    assert same_weights(load(folder, device="cpu", variant="fp16").vae, model.vae)
    for index in folder.rglob("*index*.json"):
        index.unlink()
    assert same_weights(load(folder, device="cpu").text_encoder, model.text_encoder)
    next(folder.rglob("*00002-of-*")).unlink()
    assert "parts of its weights; fetch the folder again, whole" in refusal(folder)


def test_a_variant_of_one_network(folder: Path) -> None:
    """Stable Diffusion 1.5 has its trainer's weights for the U-Net alone."""
    weights = load_file(folder / f"{UNET}.safetensors")
    save_file(
        {name: tensor * 0 for name, tensor in weights.items()},
        folder / f"{UNET}.non_ema.safetensors",
    )
    model = load(folder, device="cpu", variant="non_ema")
    assert not model.unet.network.conv_in.weight.any()
    assert same_weights(model.vae, load(MODEL, device="cpu").vae)


def test_several_variants_and_nothing_usual(folder: Path) -> None:
    file = folder / f"{VAE}.safetensors"
    shutil.copy(file, folder / f"{VAE}.bf16.safetensors")
    file.rename(folder / f"{VAE}.fp16.safetensors")
    assert "variants, bf16, fp16; choose one with variant= (--variant)" in refusal(folder)
    assert load(folder, device="cpu", variant="bf16").vae.dtype == torch.float32


def test_what_copying_leaves_in_a_folder(folder: Path) -> None:
    """macOS writes a `._name` beside every file, Windows a byte order mark, cameras capitals."""
    for file in [*folder.rglob("*.json"), *folder.rglob("*.safetensors")]:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7\0")
    for file in [*folder.rglob("[!.]*.json"), folder / "tokenizer" / "merges.txt"]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (folder / f"{VAE}.safetensors").rename(folder / f"{VAE}.SAFETENSORS")
    (folder / "drag.json").write_text('{"lr": 0.5}', "utf-8-sig")
    model = load(folder, device="cpu")
    assert_same_model(model, load(MODEL, device="cpu"), "an orange disc")
    assert model.defaults == DragConfig(lr=0.5)


@pytest.mark.parametrize("length", [None, 10**30, 1e30, 200])
def test_a_tokenizer_that_does_not_know_its_length(folder: Path, length: float | None) -> None:
    file = folder / "tokenizer" / "tokenizer_config.json"
    if length is None:
        file.unlink()
        (folder / "tokenizer" / "special_tokens_map.json").unlink()
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": length}))
    model = load(folder, device="cpu")
    assert model.tokenizer.model_max_length == 77
    expected = embed(load(MODEL, device="cpu"), "an orange disc")
    assert torch.equal(embed(model, "an orange disc"), expected)


SCHEDULERS: dict[str, tuple[dict[str, Any], str]] = {
    "flow matching": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDisc"),
    "EDM": ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDMDPMSolver"),
    "sigmas of a flow": (
        {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
        "flow",
    ),
    "a continuous Euler": (
        {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
        "timestep_type must be discrete",
    ),
    "EDM without a name": ({"_class_name": "DDIMScheduler", "sigma_data": 0.5}, "sigma_data"),
    "a flow's prediction": ({"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'"),
    "too few betas": ({"trained_betas": [0.01] * 10}, "10 trained_betas for 1000"),
    "betas of a number": ({"trained_betas": 1}, "trained_betas must be null or a list"),
    "betas above one": ({"beta_end": 7}, "beta_end must be a number"),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers_that_cannot_be_inverted(folder: Path, kind: str) -> None:
    settings, words = SCHEDULERS[kind]
    configure(folder, "scheduler", **settings)
    assert words in refusal(folder)


def test_betas_of_ones_own(folder: Path) -> None:
    expected = load(MODEL, device="cpu").schedule(10)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    configure(folder, "scheduler", trained_betas=betas.tolist())
    assert torch.equal(load(folder, device="cpu").schedule(10).alphas, expected.alphas)


def test_a_file_that_is_written_again_changes_nothing(folder: Path) -> None:
    model, expected = load(folder, device="cpu"), load(MODEL, device="cpu")
    for weights in WEIGHTS:
        (folder / f"{weights}.safetensors").open("wb").close()
    assert_same_model(model, expected, "an orange disc")


def test_models_are_loaded_side_by_side() -> None:
    """accelerate, where it is installed, patches every module of the process as diffusers loads."""
    level = logging.getLogger("diffusers").level, logging.getLogger("transformers").level
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: load(MODEL, device="cpu"), range(6)))
    assert len({model.digest for model in models}) == 1
    assert level == (logging.getLogger("diffusers").level, logging.getLogger("transformers").level)
    assert torch.empty(1).device == torch.device("cpu")


@pytest.mark.parametrize("source", [3, b"model", "a\0b", "x" * 5000, "", [], "http://a/b"])
def test_what_is_no_path_of_a_model(source: Any) -> None:
    assert "\n" not in refusal(source)


def test_pickles_are_read_only_when_allowed(folder: Path) -> None:
    pickled(folder)
    assert (
        "has its weights in a pickle, diffusion_pytorch_model.bin; convert it to .safetensors"
        in refusal(folder)
    )
    model, expected = load(folder, device="cpu", allow_pickle=True), load(MODEL, device="cpu")
    assert same_weights(model.unet.network, expected.unet.network)
    assert same_weights(model.vae, expected.vae)
    assert same_weights(model.text_encoder, expected.text_encoder)


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no unet": (
        lambda f: shutil.rmtree(f / "unet"),
        "has no folder unet; a diffusers folder has unet, vae",
    ),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "has no folder tokenizer;"),
    "no unet weights": (
        lambda f: (f / f"{UNET}.safetensors").unlink(),
        "unet' has no weights; fetch",
    ),
    "no vae weights": (lambda f: (f / f"{VAE}.safetensors").unlink(), "vae' has no weights; fetch"),
    "no text weights": (
        lambda f: (f / f"{TEXT}.safetensors").unlink(),
        "text_encoder' has no weights; fetch",
    ),
    "other safetensors": (
        lambda f: (f / f"{UNET}.safetensors").rename(f / "unet/other.safetensors"),
        "unet' has no weights; fetch",
    ),
    "unet lacks a tensor": (
        lambda f: rewrite(f, UNET, without("conv_in.weight")),
        "unet' lack conv_in.weight; they do not belong",
    ),
    "vae lacks a tensor": (
        lambda f: rewrite(f, VAE, without("quant_conv.bias")),
        "vae' lack quant_conv.bias;",
    ),
    "text lacks a tensor": (
        lambda f: rewrite(f, TEXT, without("text_model.final_layer_norm.bias")),
        "text_encoder' lack .*final_layer_norm.bias;",
    ),
    "empty weights": (
        lambda f: rewrite(f, VAE, lambda _: {"other": torch.zeros(1)}),
        "vae' lack .* and [0-9]+ more;",
    ),
    "unet of other shapes": (
        lambda f: configure(f, "unet", cross_attention_dim=48),
        "unet' have another shape for down_.* and [0-9]+ more; they do not belong",
    ),
    "vae of other shapes": (
        lambda f: configure(f, "vae", block_out_channels=[8, 8, 16, 32]),
        "vae' lack .*conv_shortcut.bias.* and [0-9]+ more;",
    ),
    "text of other shapes": (
        lambda f: configure(f, "text_encoder", hidden_size=64),
        "text_encoder' have another shape for",
    ),
    "unet cut short": (
        lambda f: cut_short(f, UNET),
        "unet/.*' could not be loaded .it has [0-9]+ bytes",
    ),
    "vae cut short": (
        lambda f: cut_short(f, VAE),
        "vae/.*' could not be loaded .it has [0-9]+ bytes",
    ),
    "text cut short": (lambda f: cut_short(f, TEXT), "text_encoder/.*' could not be loaded"),
    "unet empty": (
        lambda f: (f / f"{UNET}.safetensors").write_bytes(b""),
        "unet/.*' could not be loaded .a header of 0 bytes",
    ),
    "unet config not JSON": (
        lambda f: write(f, "unet/config.json", "{"),
        "unet/config.json' is no JSON that can be read",
    ),
    "vae config not JSON": (
        lambda f: write(f, "vae/config.json", "[]"),
        "vae/config.json' holds no JSON object",
    ),
    "text config not JSON": (
        lambda f: write(f, "text_encoder/config.json", "garbage"),
        "text_encoder/config.json' is no JSON that can be read",
    ),
    "scheduler not JSON": (
        lambda f: write(f, "scheduler/scheduler_config.json", "{]"),
        "scheduler/scheduler_config.json' is no JSON that can be read",
    ),
    "vocabulary not JSON": (
        lambda f: write(f, "tokenizer/vocab.json", "{]"),
        "tokenizer/vocab.json' is no JSON that can be read",
    ),
    "no vocabulary": (
        lambda f: (f / "tokenizer/vocab.json").unlink(),
        "tokenizer' has no vocabulary",
    ),
    "no unet config": (
        lambda f: (f / "unet/config.json").unlink(),
        "no file at .*unet/config.json'",
    ),
    "inpainting": (
        lambda f: configure(f, "unet", in_channels=9),
        r"cannot be dragged: it maps 9 channels to 4, not 4 to 4 \(an inpainting",
    ),
    "SDXL": (
        lambda f: configure(
            f, "unet", addition_embed_type="text_time", up_block_types=["UpBlock2D"] * 3
        ),
        "addition_embed_type='text_time'.*3 up blocks",
    ),
    "no middle": (lambda f: configure(f, "unet", mid_block_type=None), "no bottleneck to optimise"),
    "predicts sample": (
        lambda f: configure(f, "scheduler", prediction_type="sample"),
        "predicts 'sample'; only .*epsilon or v_prediction",
    ),
    "VAE of 16 channels": (wide_vae, "latent_channels must be 4, as Stable Diffusion's, got 16"),
    "quantised": (
        lambda f: configure(f, "text_encoder", quantization_config={"quant_method": "gptq"}),
        "quantization_config must be null: give the weights that are not quantised",
    ),
    "another class": (
        lambda f: configure(f, "vae", _class_name="AutoencoderTiny"),
        '_class_name must be one of AutoencoderKL, got "AutoencoderTiny"',
    ),
    "a million layers": (
        lambda f: configure(f, "unet", layers_per_block=10**6),
        "layers_per_block must be a whole number from 1 to 8",
    ),
    "a billion channels": (
        lambda f: configure(f, "vae", block_out_channels=[2**20] * 4),
        "vae' have another shape for .* and [0-9]+ more",
    ),
    "a layer less than there is": (
        lambda f: configure(f, "unet", layers_per_block=1),
        "unet' have another shape for up_blocks.0.* and [0-9]+ more",
    ),
    "an adapter that was not fused": (
        lambda f: rewrite(f, UNET, lambda t: t | {"mid_block.lora_A.weight": torch.ones(1)}),
        "unet' have, unlike the configuration, mid_block.lora_A.weight",
    ),
    "heads that do not divide": (
        lambda f: configure(f, "text_encoder", num_attention_heads=7),
        "text_encoder' could not be loaded",
    ),
    "a VAE that shifts": (
        lambda f: configure(f, "vae", shift_factor=0.1),
        "shift_factor must be null or",
    ),
    "blocks of the VAE that do not match": (
        lambda f: configure(f, "vae", block_out_channels=[8, 8, 16, 16, 16]),
        "(has 5 block_out_channels for 4 blocks|another shape|lack)",
    ),
    "NaN": (
        lambda f: rewrite(f, TEXT, lambda tensors: {k: t * torch.nan for k, t in tensors.items()}),
        "text_encoder' have NaN, infinity or more than 65504 in",
    ),
    "a weight that is too large": (
        lambda f: rewrite(f, UNET, lambda t: {k: w.double() * 1e30 for k, w in t.items()}),
        "unet' have NaN, infinity or more than 65504 in",
    ),
    "whole numbers": (
        lambda f: rewrite(
            f, VAE, lambda tensors: {k: t.to(torch.int8) for k, t in tensors.items()}
        ),
        "vae' have whole numbers .quantised.. for",
    ),
    "a word too many": (
        lambda f: write(f, "tokenizer/added_tokens.json", '{"<mine>": 531}'),
        "tokens up to number 531, its text encoder knows 531; give the two",
    ),
    "an empty vocabulary": (
        no_words,
        "the tokenizer of .* cannot be used .Unk token",
    ),
    "a card of depth": (lambda f: write(f, "drag.json", "[" * 10**5), "drag.json' is no JSON"),
    "another text encoder": (wide_text, "text encoder .* has width 48, its U-Net reads 32;"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_refused(folder: Path, kind: str) -> None:
    breaks, words = BROKEN[kind]
    breaks(folder)
    said = refusal(folder)
    assert "\n" not in said
    assert str(folder) in said or "this model" in said
    assert re.search(words, said), said


def test_a_pickle_that_would_run_code_is_refused_even_when_pickles_are_allowed(
    folder: Path,
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "was_run",))

    pickled(folder)
    torch.save({"conv_in.weight": Evil()}, folder / f"{UNET}.bin")
    assert "unet/diffusion_pytorch_model.bin' could not be loaded" in refusal(
        folder, allow_pickle=True
    )
    assert not (folder / "was_run").exists()


def test_a_variant_that_is_not_there() -> None:
    assert "has weights of the variant 'fp16'" in refusal(MODEL, variant="fp16")


def test_the_error_is_all_that_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for library in ("diffusers", "transformers"):
        monkeypatch.setattr(logging.getLogger(library), "handlers", [Heard(said)])
    rewrite(folder, TEXT, without("text_model.final_layer_norm.bias"))
    refusal(folder)
    (folder / f"{UNET}.safetensors").rename(folder / "unet/other.safetensors")
    refusal(folder)
    assert not said
    with pytest.raises(OSError, match="no file named"):
        UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False)
    assert said, "diffusers logs what it raises where nobody stops it"


def test_a_scheduler_of_another_kind(folder: Path) -> None:
    """Stable Diffusion 1.5 is published with PNDM's settings."""
    configure(folder, "scheduler", _class_name="PNDMScheduler", skip_prk_steps=True)
    mine, yours = load(folder, device="cpu").schedule(20), load(MODEL, device="cpu").schedule(20)
    assert mine.timesteps == yours.timesteps
    assert torch.equal(mine.alphas, yours.alphas)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no model at" in refusal(tmp_path / "nowhere")
    assert "has no folder unet, vae, text_encoder, tokenizer, scheduler" in refusal(tmp_path)
    assert "runwayml/stable-diffusion-v1-5" in refusal(Path("runwayml/stable-diffusion-v1-5"))


def test_weights_are_laid_out_as_cudnn_reads_them() -> None:
    convolution, linear = torch.nn.Conv2d(6, 4, 3), torch.nn.Linear(4, 4)
    network = torch.nn.Sequential(convolution, linear)
    before = [tensor.detach().clone() for tensor in network.parameters()]
    lay_out(network)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.weight.is_contiguous()
    assert linear.weight.is_contiguous()
    assert all(map(torch.equal, network.parameters(), before))

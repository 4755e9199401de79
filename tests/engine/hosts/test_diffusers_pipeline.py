"""DragNoise as a pipeline of diffusers: the engine's bits, diffusers' conventions."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.callbacks import PipelineCallback
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from dragnoise.engine import ConfigError, DragConfig, Editor, FastConfig, ImageError
from dragnoise.engine.errors import AdapterError, CancelledError
from dragnoise.engine.hosts.diffusers import (
    CUSTOM_PIPELINE,
    DragNoisePipeline,
    DragNoisePipelineOutput,
)
from golden_cases import MODEL
from sessions import MASK, PICTURE, POINTS, QUICK, assert_same, editor, same

PIXELS = PICTURE.pixels
HOW: dict[str, Any] = {"prompt": "a face", "config": QUICK, "mask_image": MASK}


@cache
def pipe() -> DragNoisePipeline:
    loaded = DragNoisePipeline.from_pretrained(MODEL)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def drag(pipeline: DragNoisePipeline | None = None, **how: Any) -> DragNoisePipelineOutput:
    image = how.pop("image", PIXELS)
    output = (pipeline or pipe())(image, POINTS, **(HOW | how))
    assert isinstance(output, DragNoisePipelineOutput)
    return output


def test_it_is_the_editors_edit_to_the_bit() -> None:
    found = drag().result
    assert_same(found, editor().edit(PICTURE, POINTS, mask=MASK, prompt="a face", config=QUICK))
    assert_same(
        found, pipe().editor.edit(PICTURE, POINTS, mask=MASK, prompt="a face", config=QUICK)
    )


def test_from_pipe_shares_the_weights_and_gives_a_pipeline_back() -> None:
    other = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None)
    mine = DragNoisePipeline.from_pipe(other)
    mine.set_progress_bar_config(disable=True)
    assert mine.unet is other.unet
    assert_same(drag(mine).result, drag().result)
    assert isinstance(StableDiffusionPipeline.from_pipe(mine), StableDiffusionPipeline)


def test_as_a_custom_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path))
    loaded = DiffusionPipeline.from_pretrained(
        MODEL, custom_pipeline=CUSTOM_PIPELINE, trust_remote_code=True
    )
    assert type(loaded) is DragNoisePipeline
    loaded.set_progress_bar_config(disable=True)
    assert_same(drag(loaded).result, drag().result)


def test_saved_it_opens_as_a_pipeline_and_in_the_engine(tmp_path: Path) -> None:
    mine = DragNoisePipeline.from_pipe(pipe())
    mine.drag_settings = QUICK
    mine.save_pretrained(tmp_path / "saved")
    again = DragNoisePipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    assert_same(drag(again, config=None).result, drag().result)
    StableDiffusionPipeline.from_pretrained(tmp_path / "saved", safety_checker=None)
    edited = Editor.from_pretrained(tmp_path / "saved", device="cpu", check_pictures=False)
    assert same(edited.edit(PICTURE, POINTS, mask=MASK, prompt="a face"), drag().result)


def test_without_a_folder_it_is_the_embedded_model() -> None:
    loaded = DragNoisePipeline.from_pretrained()
    loaded.set_progress_bar_config(disable=True)
    own = Editor.from_pretrained(device="cpu")
    assert loaded.editor.defaults == own.defaults != DragConfig()
    quick = own.defaults.replace(steps=4, iterations=1)
    picture = np.asarray(PIL.Image.fromarray(PIXELS).resize((128, 128)))
    output = drag(loaded, image=picture, config=quick, prompt="", mask_image=None)
    assert_same(output.result, own.edit(picture, POINTS, config=quick))


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_what_comes_out(output_type: Any) -> None:
    output = drag(output_type=output_type)
    wanted = output.result.image.pixels
    if output_type == "pil":
        assert np.array_equal(np.asarray(output.images[0]), wanted)
    elif output_type == "np":
        assert output.images.shape == (1, *wanted.shape)
        assert np.array_equal((output.images[0] * 255).round().astype(np.uint8), wanted)
    elif output_type == "pt":
        assert output.images.shape == (1, 3, *wanted.shape[:2])
        assert torch.equal(output.images[0].permute(1, 2, 0), torch.tensor(wanted) / 255)
    else:
        recorded = editor().edit(
            PICTURE, POINTS, mask=MASK, prompt="a face", config=QUICK, record=True
        )
        assert recorded.record is not None
        assert torch.equal(output.images, recorded.record.final_latent)
    assert output.nsfw_content_detected is None
    images, unsafe = pipe()(PIXELS, POINTS, return_dict=False, output_type="np", **HOW)
    assert images.shape == (1, *wanted.shape)
    assert unsafe is None


@pytest.mark.parametrize(
    "given",
    [
        PIL.Image.fromarray(PIXELS),
        [PIL.Image.fromarray(PIXELS)],
        PIXELS[None],
        torch.from_numpy(PIXELS.copy()).permute(2, 0, 1) / 255,
        torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)[None] / 255,
    ],
    ids=["pillow", "list", "array of one", "tensor", "tensor of one"],
)
def test_what_goes_in(given: Any) -> None:
    output = pipe()(given, POINTS, **HOW)
    assert isinstance(output, DragNoisePipelineOutput)
    assert_same(output.result, drag().result)


def test_a_generator_is_neither_read_nor_advanced() -> None:
    generator = torch.Generator().manual_seed(3)
    state, outside = generator.get_state(), torch.get_rng_state()
    assert_same(drag(generator=generator).result, drag().result)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), outside)


def test_diffusers_names_of_settings() -> None:
    ran = drag(num_inference_steps=5, strength=0.6, guidance_scale=2.0)
    assert ran.result.settings["config"] == QUICK.replace(steps=5, strength=0.6, guidance=2.0)
    assert pipe().guidance_scale == 2.0
    assert pipe().num_timesteps == 3
    fast = drag(config=None, preset="fast", num_inference_steps=6)
    assert fast.result.settings["config"] == FastConfig(steps=6)
    assert fast.result.settings["method"] == "fast"


def test_callback_after_every_denoising_step() -> None:
    seen: list[tuple[int, int]] = []

    def watch(given: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        assert given is pipe()
        assert tensors["latents"].shape == (1, 4, 8, 8)
        seen.append((step, timestep))
        return tensors

    assert_same(drag(callback_on_step_end=watch).result, drag().result)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert [timestep for _, timestep in seen] == sorted((t for _, t in seen), reverse=True)
    assert pipe().num_timesteps == 3


def test_what_a_callback_returns_goes_on() -> None:
    def to_zero(given: Any, step: int, timestep: int, tensors: Any) -> dict[str, Any]:
        return {"latents": tensors["latents"] * 0} if step == 2 else {}

    output = drag(callback_on_step_end=to_zero, output_type="latent")
    assert not output.images.any()
    assert not same(output.result, drag().result)
    with pytest.raises(ConfigError, match=r"latents must be \[1, 4, 8, 8\], got \[1, 4, 8\]"):
        drag(callback_on_step_end=lambda *given: {"latents": given[3]["latents"][..., 0]})


def test_a_callback_of_diffusers_own() -> None:
    class Halved(PipelineCallback):  # type: ignore[misc]
        tensor_inputs = ("latents",)

        def callback_fn(self, pipeline: Any, step: int, timestep: int, given: Any) -> Any:
            return {"latents": given["latents"] / 2}

    halved = drag(callback_on_step_end=Halved(cutoff_step_ratio=1.0, cutoff_step_index=None))
    assert not same(halved.result, drag().result)


def test_interrupted_while_it_denoises_the_picture_is_decoded_as_it_is() -> None:
    steps: list[int] = []

    def stop(given: Any, step: int, timestep: int, tensors: Any) -> dict[str, Any]:
        steps.append(step)
        given._interrupt = step == 1
        return {}

    stopped = drag(callback_on_step_end=stop)
    assert pipe().interrupt
    assert steps == [0, 1]
    assert not same(stopped.result, drag().result)
    assert_same(drag().result, drag().result)  # the next call begins anew
    assert not pipe().interrupt


def test_interrupted_before_there_is_a_picture_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bar:
        def update(self, steps: int) -> None:
            pipe()._interrupt = True

        def set_description(self, stage: str) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(pipe(), "progress_bar", lambda total: Bar(), raising=False)
    with pytest.raises(CancelledError, match="interrupted in its stage"):
        drag()


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    shown = DragNoisePipeline.from_pipe(pipe())
    drag(shown)
    said = capsys.readouterr().err
    assert [stage in said for stage in ("invert", "drag", "propagate")] == [True] * 3
    assert "3/3" in said


def test_the_editor_follows_the_components() -> None:
    mine = DragNoisePipeline.from_pretrained(MODEL)
    first = mine.editor
    assert mine.editor is first
    mine.to(torch.bfloat16)
    assert mine.editor is not first
    assert mine.editor.model.dtype == torch.bfloat16


def test_an_adapter_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").write_bytes(b"nothing")
    with pytest.raises(AdapterError):
        pipe().load_lora_weights(tmp_path / "adapter.safetensors")
    assert_same(drag().result, drag().result)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_a_safety_checker_looks_at_the_edited_picture() -> None:
    small: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2}
    sizes = CLIPConfig(
        text_config=small | heads,
        vision_config=small | heads | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    checker = StableDiffusionSafetyChecker(sizes)
    checker.concept_embeds_weights.data.fill_(2.0)  # a cosine is below
    checker.special_care_embeds_weights.data.fill_(2.0)
    size = {"height": 32, "width": 32}
    extractor = CLIPImageProcessor(size=size, crop_size=size)
    parts = pipe().components | {"safety_checker": checker, "feature_extractor": extractor}
    checked = DragNoisePipeline(**parts)
    checked.set_progress_bar_config(disable=True)
    output = drag(checked)
    assert output.nsfw_content_detected == [False]
    assert np.array_equal(np.asarray(output.images[0]), drag().result.image.pixels)
    checker.concept_embeds_weights.data.fill_(-2.0)  # now everything is above
    blackened = drag(checked)
    assert blackened.nsfw_content_detected == [True]
    assert not np.asarray(blackened.images[0]).any()
    with pytest.raises(ConfigError, match="needs a feature_extractor"):
        drag(DragNoisePipeline(**(parts | {"feature_extractor": None})))


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"output_type": "jpeg"}, ConfigError, "output_type must be one of .* got 'jpeg'"),
        (
            {"callback_on_step_end_tensor_inputs": ["latents", "noise"]},
            ConfigError,
            r"must be of \['latents'\], got \['noise'\]",
        ),
        ({"preset": "fast"}, ConfigError, "give config or preset, not both"),
        (
            {"config": None, "preset": "warp", "output_type": "latent"},
            ConfigError,
            "the method warp has no latent",
        ),
        (
            {"config": None, "preset": "warp", "num_inference_steps": 5},
            ConfigError,
            "WarpConfig has no num_inference_steps",
        ),
        (
            {"config": None, "preset": "warp", "callback_on_step_end": lambda *given: {}},
            ConfigError,
            "has no step to call back after",
        ),
        ({"image": [PIXELS, PIXELS]}, ConfigError, "drags on one picture, got 2"),
        ({"image": np.zeros((2, 8, 8, 3))}, ConfigError, "drags on one picture, got 2"),
        ({"image": "nowhere.png"}, ImageError, "nowhere.png"),
    ],
)
def test_what_does_not_fit(changed: dict[str, Any], kind: Any, words: str) -> None:
    image = changed.pop("image", PIXELS)
    with pytest.raises(kind, match=words):
        pipe()(image, POINTS, **(HOW | changed))


def test_a_preset_without_a_model() -> None:
    output = drag(config=None, preset="warp")
    assert same(output.result, editor().edit(PICTURE, POINTS, mask=MASK, preset="warp"))

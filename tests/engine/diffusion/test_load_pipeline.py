"""A pipeline is used where it lies: no second copy of its weights, and nothing changed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from dragnoise.engine import Adapter, DeviceError, DragConfig, Editor, ModelError
from dragnoise.engine.diffusion.lora.adapter import FILE, projections
from dragnoise.engine.stages import embed
from golden_cases import MODEL, Case

QUICK = DragConfig(steps=10, strength=0.3, iterations=3)
NETWORKS = ("unet", "vae", "text_encoder")


@pytest.fixture
def pipeline() -> Any:
    loaded = StableDiffusionPipeline.from_pretrained(
        MODEL, local_files_only=True, low_cpu_mem_usage=False
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


def weights_of(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": weight
        for part in NETWORKS
        for name, weight in getattr(pipeline, part).state_dict(keep_vars=True).items()
    }


def test_same_memory_and_an_unchanged_pipeline(pipeline: Any) -> None:
    pipeline.unet.train()
    pipeline.vae.requires_grad_(False)
    before = weights_of(pipeline)
    said = {
        name: (weight.data_ptr(), weight.requires_grad, weight.clone())
        for name, weight in before.items()
    }
    modes = {
        part: [module.training for module in getattr(pipeline, part).modules()] for part in NETWORKS
    }
    scheduler, configuration = pipeline.scheduler, dict(pipeline.scheduler.config)

    editor = Editor.from_pipeline(pipeline)
    networks = {
        "unet": editor.model.unet.network,
        "vae": editor.model.vae,
        "text_encoder": editor.model.text_encoder,
    }
    for part, network in networks.items():
        assert network is not getattr(pipeline, part)
        assert not any(module.training for module in network.modules())
        for name, weight in network.state_dict(keep_vars=True).items():
            assert (
                weight.untyped_storage().data_ptr()
                == before[f"{part}.{name}"].untyped_storage().data_ptr()
            ), name
            assert not weight.requires_grad, name
    case = Case("dn01_short_early_stop")
    editor.edit(case.image, case.said["points"], config=QUICK)

    after = weights_of(pipeline)
    assert after.keys() == said.keys()
    for name, (pointer, wants_gradient, value) in said.items():
        assert after[name] is before[name]
        assert (after[name].data_ptr(), after[name].requires_grad) == (pointer, wants_gradient), (
            name
        )
        assert torch.equal(after[name], value), name
    assert modes == {
        part: [module.training for module in getattr(pipeline, part).modules()] for part in NETWORKS
    }
    assert pipeline.scheduler is scheduler
    assert dict(pipeline.scheduler.config) == configuration


def test_the_edit_is_the_folders(pipeline: Any) -> None:
    case = Case("dn01_short_early_stop")
    results = [
        editor.edit(
            case.image,
            case.said["points"],
            mask=case.mask,
            prompt=case.said["prompt"],
            config=QUICK,
            record=True,
        )
        for editor in (Editor.from_pipeline(pipeline), Editor.from_pretrained(MODEL, device="cpu"))
    ]
    first, second = (result.record for result in results)
    assert first is not None
    assert second is not None
    assert torch.equal(first.bottleneck, second.bottleneck)
    assert (results[0].image.pixels == results[1].image.pixels).all()


def test_what_the_pipeline_learns_later_is_seen(pipeline: Any) -> None:
    """The weights are shared, so a fine-tuned pipeline needs no new editor."""
    editor = Editor.from_pipeline(pipeline)
    with torch.no_grad():
        pipeline.unet.conv_in.bias.add_(1)
    assert torch.equal(editor.model.unet.network.conv_in.bias, pipeline.unet.conv_in.bias)


def test_any_scheduler_of_the_family_gives_its_noise_schedule(pipeline: Any) -> None:
    expected = Editor.from_pipeline(pipeline).model.schedule(10)
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config)
    schedule = Editor.from_pipeline(pipeline).model.schedule(10)
    assert schedule.timesteps == expected.timesteps
    assert torch.equal(schedule.alphas, expected.alphas)


@pytest.mark.parametrize("mark", ["_hf_hook", "_diffusers_hook"])
@pytest.mark.parametrize("part", NETWORKS)
def test_weights_that_move_are_refused(pipeline: Any, part: str, mark: str) -> None:
    next(getattr(pipeline, part).children()).__dict__[mark] = object()
    with pytest.raises(
        ModelError,
        match=f"the pipeline's {part} is moved between devices .*; give a pipeline without off",
    ):
        Editor.from_pipeline(pipeline)


def test_what_else_is_refused(pipeline: Any) -> None:
    encoder, pipeline.text_encoder = pipeline.text_encoder, None
    with pytest.raises(
        ModelError, match="StableDiffusionPipeline has no text_encoder; give a Stable Diffusion"
    ):
        Editor.from_pipeline(pipeline)
    pipeline.text_encoder = encoder.to("meta")
    with pytest.raises(ModelError, match="lies on cpu, meta; put it on one device"):
        Editor.from_pipeline(pipeline)
    pipeline.text_encoder = encoder.to_empty(device="cpu")
    pipeline.unet.half()
    with pytest.raises(DeviceError, match="float16 is not supported on the CPU"):
        Editor.from_pipeline(pipeline)


def test_what_to_do_about_a_pipelines_adapter(pipeline: Any, tmp_path: Path) -> None:
    """Not merged, or merged and still there: after what is said, the edit is the adapter's."""
    name, layer = min(projections(pipeline.unet).items())
    change = 0.1 * torch.ones(layer.out_features, layer.in_features)
    file = Adapter(((name, change[:1], torch.ones(layer.out_features, 1)),)).save(tmp_path / FILE)
    plain = layer.weight.clone()
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    with pytest.raises(ModelError, match=r"unmerged adapters .* fuse_lora\(\), then take them off"):
        Editor.from_pipeline(pipeline)
    pipeline.fuse_lora()
    with pytest.raises(
        ModelError, match=r"merged adapters that are still there .* unload_lora_weigh"
    ):
        Editor.from_pipeline(pipeline)
    pipeline.unload_lora_weights()
    network = Editor.from_pipeline(pipeline).model.unet.network
    torch.testing.assert_close(network.get_submodule(name).weight, plain + change)


def test_a_learned_word_is_all_of_its_vectors(pipeline: Any) -> None:
    """Textual inversion; a saved pipeline reads it as the pipeline does."""
    torch.manual_seed(1)
    width = pipeline.text_encoder.config.hidden_size
    pipeline.load_textual_inversion(torch.randn(3, width), token="<mine>")
    model = Editor.from_pipeline(pipeline).model
    for prompt in ("an orange disc", "a <mine> disc, <mine>"):
        expected = pipeline.encode_prompt(prompt, "cpu", 1, False)[0]
        assert torch.equal(embed(model, prompt), expected), prompt


def test_a_tokenizers_length_is_the_encoders(pipeline: Any) -> None:
    pipeline.tokenizer.model_max_length = 10**30
    model = Editor.from_pipeline(pipeline).model
    assert model.tokenizer.model_max_length == 77
    assert pipeline.tokenizer.model_max_length == 10**30
    pipeline.tokenizer.add_tokens("<new>")
    with pytest.raises(ModelError, match="tokens up to number 531, its text encoder knows 531"):
        Editor.from_pipeline(pipeline)


def test_a_pipeline_of_flow_matching_is_refused(pipeline: Any) -> None:
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ModelError, match=r"flow matching .*FlowMatchEulerDiscreteScheduler"):
        Editor.from_pipeline(pipeline)

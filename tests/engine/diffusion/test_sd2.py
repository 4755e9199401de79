"""Stable Diffusion 2.x: linear projections, heads a level, OpenCLIP's text encoder, the prediction
of v.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from dragnoise.engine import DragConfig, Editor, ModelError
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.schedule import Schedule
from original_layout import write_checkpoint
from same_models import assert_same_model
from small_models import sd2

SETTINGS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd2(tmp_path_factory.mktemp("sd2") / "model")


def test_it_loads_and_edits(folder: Path) -> None:
    editor = Editor.from_pretrained(folder, device="cpu")
    assert editor.model.schedule(50).prediction == "v_prediction"
    picture = np.random.default_rng(1).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    config = DragConfig(steps=10, strength=0.5, iterations=3)
    result = editor.edit(
        picture, "20,20:40,30", mask=np.eye(64, 72) > 0, prompt="a ring", config=config, record=True
    )
    assert result.image.pixels.shape == (64, 72, 3)
    assert np.isfinite(result.history.losses).all()
    assert len(result.history.losses) == 3
    assert result.record is not None
    assert not torch.equal(result.record.bottleneck, result.record.bottleneck_start)
    assert result.record.final_latent.isfinite().all()


def test_the_predicted_noise_is_the_schedulers(folder: Path) -> None:
    """The record's reference noise is eps, whatever the network predicts."""
    editor = Editor.from_pretrained(folder, device="cpu")
    config = DragConfig(steps=10, strength=0.5, iterations=1)
    record = editor.edit(
        np.zeros((64, 64, 3), dtype=np.uint8), "20,20:40,30", config=config, record=True
    ).record
    assert record is not None
    assert record.reference_noise is not None
    schedule, t, latent = record.scene.place.schedule, record.scene.place.timestep, record.inverted
    v, a = editor.model.unet(latent, record.scene.place.conditioning.at(t)), schedule.alphas[t]
    torch.testing.assert_close(
        record.reference_noise, a.sqrt() * v + (1 - a).sqrt() * latent, rtol=1e-5, atol=1e-5
    )
    assert not torch.allclose(record.reference_noise, v, atol=1e-2)


def test_its_single_file_checkpoint_is_its_folder(folder: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(folder, tmp_path / "sd2.safetensors", open_clip=True)
    model = load(checkpoint, device="cpu", config=folder)
    assert_same_model(model, load(folder, device="cpu"), "a ring")


@pytest.mark.parametrize("steps", [50, 30, 7], ids=["as published", "1000 is no multiple", "few"])
def test_v_steps_are_the_schedulers(steps: int) -> None:
    torch.manual_seed(1)
    output, latent = torch.randn(2, 1, 4, 6, 6)
    schedule = Schedule.of(SETTINGS, steps)
    ddim = DDIMScheduler(**SETTINGS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    ddim.set_timesteps(steps)
    assert schedule.timesteps == tuple(ddim.timesteps.tolist())
    for t in schedule.timesteps:
        eps = schedule.noise(output, latent, t)
        theirs = ddim.step(output, t, latent)
        torch.testing.assert_close(
            schedule.denoise(eps, latent, t), theirs.prev_sample, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            schedule.clean(eps, latent, t) * schedule.alphas[t].sqrt(),
            theirs.pred_original_sample * schedule.alphas[t].sqrt(),
            rtol=1e-5,
            atol=1e-5,
        )


def test_inversion_and_denoising_by_an_ideal_model_return_the_latent() -> None:
    """A model of a single picture knows it exactly: v = sqrt(a) eps - sqrt(1 - a) x0, eps what
    separates the latent from the picture.
    """
    torch.manual_seed(1)
    picture, start = torch.randn(2, 1, 4, 6, 6)
    schedule = Schedule.of(SETTINGS, 50)

    def v(latent: Tensor, now: int, told: int) -> Tensor:
        a, b = schedule.alphas[max(now, 0)], schedule.alphas[told]
        eps = (latent - a.sqrt() * picture) / (1 - a).sqrt()
        predicted: Tensor = (eps - (1 - b).sqrt() * latent) / b.sqrt()
        return predicted

    active = schedule.active(35)
    latent = start
    for _, t in reversed(active):
        eps = schedule.noise(v(latent, t - 20, t), latent, t)
        latent = schedule.invert(eps, latent, t)
    assert float((latent - start).abs().max()) > 0.5
    for _, t in active:
        latent = schedule.denoise(schedule.noise(v(latent, t, t), latent, t), latent, t)
    torch.testing.assert_close(latent, start, rtol=1e-3, atol=1e-3)


def test_a_model_that_predicts_the_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match="this model predicts 'sample'; only models that predict epsilon or v_prediction",
    ):
        load(sd2(tmp_path / "model", prediction="sample"), device="cpu")

"""Two drag methods that only tests have, to hold the seam open.

LATENT optimises the noisy latent, with the encoder half in the loop, as DragDiffusion does.
PIXELS knows no diffusion: what is optimised is the picture itself, as with a GAN, whose variable
is the picture's only cause.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine.config import DiffusionSettings, Settings
from dragnoise.engine.diffusion.lora.adapter import AdapterUse
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.diffusion.unet import FEATURE_BLOCK
from dragnoise.engine.drag.loop import Iteration, Optimum
from dragnoise.engine.drag.method import AnyMethod, Forward, Method, Start
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.drag.start import start
from dragnoise.engine.drag.supervision import (
    TrackedState,
    all_reached,
    at_handles,
    motion,
    track_features,
)
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.methods.prediction import Prediction
from dragnoise.engine.pipelines.diffusion import DIFFUSION
from dragnoise.engine.pipelines.pipeline import Finished, OnStep, Pipeline, Prepared
from dragnoise.engine.pipelines.source import Source
from dragnoise.engine.run import Run
from dragnoise.engine.stages import Denoising

__all__ = ["LATENT", "PIXELS", "LatentSettings", "PixelSettings"]


# The latent is optimised.


@dataclass(frozen=True)
class LatentSettings(DiffusionSettings):
    """Settings of its own, beside those of all methods on a diffusion model."""

    r_m: int = 1
    r_p: int = 3
    weight: float = 1.0


_LatentScene = Scene[Place, LatentSettings]


def _latent_start(place: Place) -> Start[None]:
    return Start(None, place.latent.clone())


def _latent_features(scene: _LatentScene, constants: None, latent: Tensor) -> Prediction:
    place = scene.place
    unet = place.model.unet
    down = unet.down(latent, place.step)
    up = unet.up(down, unet.middle(down), FEATURE_BLOCK, scene.needs_output)
    assert up.features is not None
    if up.output is None:
        return Prediction(up.features, None)
    return Prediction(up.features, place.schedule.noise(up.output, latent, place.timestep))


def _latent_loss(
    scene: _LatentScene, reference: Prediction, forward: Prediction, state: TrackedState
) -> Tensor:
    loss = scene.settings.weight * motion(scene, forward, state)
    if scene.keep is None or forward.noise is None or reference.noise is None:
        return loss
    return loss + scene.settings.lam * ((forward.noise - reference.noise) * scene.keep).abs().sum()


def _latent_finish(scene: _LatentScene, constants: None, latent: Tensor) -> Denoising:
    place = scene.place

    def noise(index: int, timestep: int, noisy: Tensor) -> Tensor:
        output = place.model.unet(noisy, place.conditioning.at(timestep))
        return place.schedule.noise(output, noisy, timestep)

    return Denoising(latent, noise)


def _latent_preview(
    scene: _LatentScene, constants: None, latent: Tensor, forward: Prediction
) -> Tensor:
    place = scene.place
    output = place.model.unet(latent, place.step)
    noise = place.schedule.noise(output, latent, place.timestep)
    return place.schedule.clean(noise, latent, place.timestep)


LATENT = Method(
    name="toy-latent",
    source="this test",
    pipeline=DIFFUSION,
    settings=LatentSettings,
    start=_latent_start,
    features=_latent_features,
    begin=at_handles,
    follow=track_features,
    finished=all_reached,
    supervise=_latent_loss,
    finish=_latent_finish,
    preview=_latent_preview,
)


# The picture is optimised.


@dataclass(frozen=True)
class Nothing(Settings):
    """What everything before the first update depends on: nothing."""


@dataclass(frozen=True)
class PixelSettings(Settings):
    """Settings that know no steps, no strength and no guidance."""

    iterations: int = 5
    lr: float = 0.05
    lam: float = 1.0
    r_m: int = 2
    r_p: int = 4

    @property
    def preparation(self) -> Nothing:
        return Nothing()


_PixelScene = Scene[Tensor, PixelSettings]


def _pixel_features(scene: _PixelScene, first: Tensor, pixels: Tensor) -> Forward:
    return Forward(F.interpolate(pixels, scene.resolution, mode="area"))


def _pixel_loss(
    scene: _PixelScene, reference: Forward, forward: Forward, state: TrackedState
) -> Tensor:
    loss = motion(scene, forward, state)
    if scene.keep is None:
        return loss
    keep = F.interpolate(scene.keep, scene.resolution, mode="nearest")
    moved = (forward.features - reference.features) * keep
    return loss + scene.settings.lam * moved.abs().sum()


def _prepare(
    run: Run,
    model: Any,
    source: Source,
    method: AnyMethod,
    settings: PixelSettings,
    use: AdapterUse = AdapterUse(),  # noqa: B008 frozen
    *,
    on_step: OnStep | None = None,
) -> Prepared[Tensor]:
    frame = Frame.of(source.image, 1)
    pixels = run.once(Frame.pixels, frame, source.image)
    return Prepared(
        source=source,
        frame=frame,
        inversion=(),
        place=pixels,
        start=run(start, method, pixels),
        cells=frame.padded,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def _finish(
    run: Run,
    method: AnyMethod,
    scene: Scene[Tensor, Any],
    optimum: Optimum,
    *,
    on_step: OnStep | None = None,
    on_shown: OnStep | None = None,
) -> Finished:
    pixels = method.finish(scene, optimum.constants, optimum.variable)
    return Finished(pixels, pixels, scene)


def _preview(
    run: Run,
    method: AnyMethod,
    scene: Scene[Tensor, Any],
    start: Start[Any],
    iteration: Iteration[Any],
    decoder: Any = None,
) -> Tensor:
    return method.preview(scene, start.constants, iteration.variable, iteration.forward)


PIXELS = Method(
    name="toy-pixels",
    source="this test",
    pipeline=Pipeline("pixels", _prepare, _finish, _preview, lambda *_: None),
    settings=PixelSettings,
    start=lambda pixels: Start(pixels, pixels.clone()),
    features=_pixel_features,
    begin=at_handles,
    follow=track_features,
    finished=all_reached,
    supervise=_pixel_loss,
    finish=lambda scene, first, pixels: pixels,
    preview=lambda scene, first, pixels, forward: pixels.clone(),
)

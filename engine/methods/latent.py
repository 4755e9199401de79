"""Optimise the noisy latent itself, and denoise it by mutual self-attention.

Shared by DragDiffusion and FreeDrag. The variable is the network's input, so the encoder half is
inside the loop: nothing of a pass is constant but the step and the text. The denoising reads the
keys and values of the unedited picture's own, so that textures stay (`unet/mutual.py`).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from ..cache.structure import storable
from ..config import DiffusionSettings
from ..diffusion.place import Place
from ..diffusion.unet import FEATURE_BLOCK
from ..drag.method import Start
from ..drag.scene import Scene
from ..stages import Denoising
from .prediction import Prediction, with_output

__all__ = ["LatentPrediction", "features", "finish", "preview", "previous", "start"]

_Scene: TypeAlias = Scene[Place, Any]


@storable
@dataclass(frozen=True, eq=False)
class LatentPrediction(Prediction):
    """A forward pass from a latent.

    Attributes:
        latent: What the network read, float32 [1, 4, h, w].
    """

    latent: Tensor


def start(place: Place) -> Start[None]:
    """Return the inverted latent as the variable; nothing is constant."""
    return Start(None, place.latent)


def features(scene: _Scene, constants: None, latent: Tensor) -> LatentPrediction:
    """Run the network up to the supervised map, or to its output where that is wanted."""
    place = scene.place
    up = place.model.unet.features(latent, place.step, FEATURE_BLOCK, scene.needs_output)
    assert up.features is not None
    noise = None if up.output is None else place.schedule.noise(up.output, latent, place.timestep)
    return LatentPrediction(up.features, noise, latent)


def previous(scene: Scene[Place, DiffusionSettings], forward: LatentPrediction) -> Tensor:
    """Return the latent one denoising step on, float32 [1, 4, h, w]."""
    assert forward.noise is not None
    return scene.place.schedule.denoise(forward.noise, forward.latent, scene.place.timestep)


def finish(scene: _Scene, constants: None, latent: Tensor) -> Denoising:
    """Denoise from the optimum, reading what the unedited picture's denoising shows."""
    place = scene.place
    unet = place.model.unet

    def noise(index: int, timestep: int, current: Tensor) -> Tensor:
        step = place.conditioning.at(timestep)
        shown = scene.shown.steps[index - place.index]
        output = unet.reading(current, step, shown) if shown else unet(current, step)
        return place.schedule.noise(output, current, timestep)

    return Denoising(latent, noise)


def preview(scene: _Scene, constants: None, latent: Tensor, forward: LatentPrediction) -> Tensor:
    """Return the predicted clean latent, x0 = (x - sqrt(1 - a) eps) / sqrt(a)."""
    if forward.noise is None:  # a pass of its own, on the variable as it is now
        forward = features(with_output(scene), None, latent)
    assert forward.noise is not None
    return scene.place.schedule.clean(forward.noise, forward.latent, scene.place.timestep)

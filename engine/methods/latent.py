"""Optimise the noisy latent itself, and denoise it by mutual self-attention.

Shared by DragDiffusion, FreeDrag and GoodDrag. The variable is the network's input, so the encoder
half is inside the loop: nothing of a pass is constant but the step and the text. The denoising
reads the keys and values of the unedited picture's own, so that textures stay (`unet/mutual.py`).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dragnoise.kernels.latent_term import latent_term

from ..cache.structure import storable
from ..config import Mutual
from ..diffusion.place import Place
from ..diffusion.unet import FEATURE_BLOCK
from ..drag.method import Start
from ..drag.scene import Scene
from ..stages import Denoising
from .prediction import Prediction, with_output

__all__ = ["LatentPrediction", "features", "finish", "mask_term", "mutual", "preview", "start"]

_Scene: TypeAlias = Scene[Place, Any]


@storable
@dataclass(frozen=True, eq=False)
class LatentPrediction(Prediction):
    """A forward pass from a latent.

    Attributes:
        previous: The latent one denoising step on, float32 [1, 4, h, w]; None without noise.
        expected: The predicted clean latent, likewise.
    """

    previous: Tensor | None
    expected: Tensor | None

    def clean(self, place: Place) -> Tensor:
        """Return the predicted clean latent."""
        assert self.expected is not None
        return self.expected


def start(place: Place) -> Start[None]:
    """Return the inverted latent as the variable; nothing is constant."""
    return Start(None, place.latent)


def features(scene: _Scene, constants: None, latent: Tensor) -> LatentPrediction:
    """Run the network up to the supervised map, or to its output where that is wanted."""
    place = scene.place
    schedule = place.schedule
    up = place.model.unet.features(latent, place.step, FEATURE_BLOCK, scene.needs_output)
    assert up.features is not None
    if up.output is None:
        return LatentPrediction(up.features, None, None, None)
    noise = schedule.noise(up.output, latent, place.timestep)
    return LatentPrediction(
        up.features,
        noise,
        schedule.denoise(noise, latent, place.timestep),
        schedule.clean(noise, latent, place.timestep),
    )


def mask_term(
    scene: _Scene, reference: LatentPrediction, forward: LatentPrediction, weight: float
) -> Tensor:
    """Return weight * sum |(x_prev - x_prev_0)(1 - M)|, or zero where nothing must stay."""
    if scene.keep is None:
        return forward.features.new_zeros((), dtype=torch.float32)
    assert forward.previous is not None
    assert reference.previous is not None
    return latent_term(forward.previous, reference.previous, scene.keep, 1.0, weight)


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


def mutual(settings: Any) -> Mutual:
    """Return what the denoising reads of the unedited picture's own."""
    found: Mutual = settings.mutual
    return found


def preview(scene: _Scene, constants: None, latent: Tensor, forward: LatentPrediction) -> Tensor:
    """Return the predicted clean latent."""
    if forward.noise is None:  # a pass of its own, on the variable as it is now
        forward = features(with_output(scene), None, latent)
    return forward.clean(scene.place)

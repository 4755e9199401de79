"""DragNoise (Liu et al., CVPR 2024): the bottleneck is optimised at one noisy step, then held through the remaining denoising steps.

The latent, the step and the text never change during the drag, so the encoder half and the middle block run once; only the decoder half is in the
loop.
"""

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from ..diffusion.unet import Down, Folded
from ..drag.method import Forward, Method, Place, Predictor, Scene, Start
from ..drag.supervision import all_reached, at_handles, motion_and_mask, track_features

__all__ = ["DRAGNOISE", "EncoderHalf"]

_FEATURE_BLOCK = 2


@dataclass(frozen=True, eq=False)
class EncoderHalf:
    """What is computed once a place: the encoder half, and what its skips contribute to the decoder half."""

    down: Down
    folded: Folded


def _start(place: Place) -> Start:
    unet = place.model.unet
    down = unet.down(place.latent, place.step)
    return Start(EncoderHalf(down, unet.folded(down)), unet.middle(down).float())


def _features(scene: Scene, fixed: EncoderHalf, bottleneck: Tensor) -> Forward:
    wanted = scene.wants_noise or scene.keep is not None
    up = scene.model.unet.decode(fixed.folded, bottleneck, _FEATURE_BLOCK, wanted)
    assert up.features is not None
    return Forward(
        up.features,
        None
        if up.output is None
        else scene.schedule.noise(up.output, scene.latent, scene.timestep),
    )


def _propagate(scene: Scene, fixed: EncoderHalf, bottleneck: Tensor) -> Predictor:
    unet = scene.model.unet

    def noise(index: int, timestep: int, latent: Tensor) -> Tensor:
        step = scene.conditioning.at(timestep)
        if index >= scene.config.injected_steps:
            output = unet(latent, step)
        elif index == scene.index:
            output = cast(Tensor, unet.up(fixed.down, bottleneck).output)
        else:
            output = unet.replaced(latent, step, bottleneck)
        return scene.schedule.noise(output, latent, timestep)

    return noise


DRAGNOISE = Method(
    name="dragnoise",
    source="Liu et al., Drag Your Noise: Interactive Point-based Editing via Diffusion Semantic Propagation, CVPR 2024",
    start=_start,
    features=_features,
    begin=at_handles,
    follow=track_features,
    finished=all_reached,
    supervise=motion_and_mask,
    propagate=_propagate,
)

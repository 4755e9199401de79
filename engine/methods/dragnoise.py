"""DragNoise (Liu et al., CVPR 2024): the bottleneck is optimised at one noisy step, then held through the remaining denoising steps.

The latent, the step and the text never change during the drag, so the encoder half and the middle block run once; only the decoder half is in the
loop.
"""

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from ..unet import Decoder, Down
from .method import Method, Predictor, Scene, Seen
from .supervision import all_reached, at_handles, motion_and_mask, track_features

__all__ = ["DRAGNOISE"]

_FEATURE_BLOCK = 2


@dataclass(frozen=True, eq=False)
class _Fixed:
    """What a drag computes once: the encoder half, and the decoder half with the skips folded in."""

    down: Down
    decoder: Decoder


def _start(scene: Scene) -> tuple[_Fixed, Tensor]:
    unet = scene.model.unet
    down = unet.down(scene.latent, scene.step)
    return _Fixed(down, unet.folded(down)), unet.middle(down).float()


def _features(scene: Scene, fixed: _Fixed, bottleneck: Tensor) -> Seen:
    wanted = scene.wants_noise or scene.keep is not None
    up = fixed.decoder(bottleneck, _FEATURE_BLOCK, wanted)
    assert up.features is not None
    return Seen(
        up.features, None if up.output is None else scene.schedule.noise(up.output, scene.latent, scene.timestep)
    )


def _propagate(scene: Scene, fixed: _Fixed, bottleneck: Tensor) -> Predictor:
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

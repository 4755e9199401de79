"""DragNoise (Liu et al., CVPR 2024): optimise the bottleneck at one noisy step, then hold it.

The latent, the step and the text never change during the drag, so the encoder half and the middle
block run once; only the decoder half is in the loop. The optimum is held through the remaining
denoising steps.
"""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from ..cache.structure import storable
from ..config import DiffusionSettings, DragConfig
from ..diffusion.place import Place
from ..diffusion.unet import FEATURE_BLOCK, Down, Folded
from ..drag.method import Method, Start
from ..drag.scene import Scene
from ..drag.supervision import all_reached, at_handles, track_features
from ..pipelines.diffusion import DIFFUSION
from ..stages import Denoising
from .prediction import Prediction, motion_and_mask, with_output

__all__ = ["DRAGNOISE", "EncoderHalf", "features", "preview", "start"]

_Scene: TypeAlias = Scene[Place, DragConfig]
_AnyScene: TypeAlias = Scene[Place, DiffusionSettings]


@storable
@dataclass(frozen=True, eq=False)
class EncoderHalf:
    """The constants of a place.

    Attributes:
        down: What the encoder half hands on.
        folded: What its skips contribute to the decoder half.
    """

    down: Down
    folded: Folded


def start(place: Place) -> Start[EncoderHalf]:
    """Run encoder half and middle block, and fold what does not change."""
    unet = place.model.unet
    down = unet.down(place.latent, place.step)
    bottleneck = unet.middle(down)
    return Start(EncoderHalf(down, unet.folded(down, bottleneck)), bottleneck.float())


def features(scene: _AnyScene, half: EncoderHalf, bottleneck: Tensor) -> Prediction:
    """Run the decoder half with this bottleneck, as far as somebody reads it."""
    place = scene.place
    up = place.model.unet.decode(half.folded, bottleneck, FEATURE_BLOCK, scene.needs_output)
    assert up.features is not None
    if up.output is None:
        return Prediction(up.features, None)
    noise = place.schedule.noise(up.output, place.latent, place.timestep)
    return Prediction(up.features, noise)


def _finish(scene: _Scene, half: EncoderHalf, bottleneck: Tensor) -> Denoising:
    """Denoise from the unchanged latent, with the optimum in place of the middle block's output."""
    place = scene.place
    unet = place.model.unet

    def noise(index: int, timestep: int, latent: Tensor) -> Tensor:
        step = place.conditioning.at(timestep)
        if index >= scene.settings.injected_steps:
            output = unet(latent, step)
        elif index == place.index:
            held = unet.up(half.down, bottleneck).output
            assert held is not None
            output = held
        else:
            output = unet.replaced(latent, step, bottleneck)
        return place.schedule.noise(output, latent, timestep)

    return Denoising(place.latent, noise)


def preview(scene: _AnyScene, half: EncoderHalf, bottleneck: Tensor, forward: Prediction) -> Tensor:
    """Return the predicted clean latent."""
    if forward.noise is None:  # a pass of its own, on the variable as it is now
        variable = bottleneck.to(scene.place.model.unet.compares_in)
        forward = features(with_output(scene), half, variable)
    return forward.clean(scene.place)


DRAGNOISE = Method(
    name="dragnoise",
    source="Liu et al., Drag Your Noise: Interactive Point-based Editing via Diffusion Semantic "
    "Propagation, CVPR 2024",
    pipeline=DIFFUSION,
    settings=DragConfig,
    start=start,
    features=features,
    begin=at_handles,
    follow=track_features,
    finished=all_reached,
    supervise=motion_and_mask,
    finish=_finish,
    preview=preview,
)

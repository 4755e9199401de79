"""DragDiffusion (Shi et al., CVPR 2024): optimise the noisy latent at one step.

Motion supervision and tracking are DragNoise's, which took them from here; the mask term compares
the latents one denoising step on. What differs is what is optimised, and so what can be reused:
the encoder half depends on the variable and runs in every iteration.
"""

from torch import Tensor

from ..config import DragDiffusionConfig
from ..diffusion.place import Place
from ..drag.method import Method, State
from ..drag.scene import Scene
from ..drag.supervision import all_reached, at_handles, motion, track_features
from ..pipelines.diffusion import DIFFUSION
from . import latent
from .latent import LatentPrediction

__all__ = ["DRAGDIFFUSION"]


def _supervise(
    scene: Scene[Place, DragDiffusionConfig],
    reference: LatentPrediction,
    forward: LatentPrediction,
    state: State,
) -> Tensor:
    """Return the motion loss plus lambda * sum |(x_prev - x_prev_0)(1 - M)| (equation 3)."""
    term = latent.mask_term(scene, reference, forward, scene.settings.lam)
    return motion(scene, forward, state) + term


DRAGDIFFUSION = Method(
    name="dragdiffusion",
    source="Shi et al., DragDiffusion: Harnessing Diffusion Models for Interactive Point-based "
    "Image Editing, CVPR 2024",
    pipeline=DIFFUSION,
    settings=DragDiffusionConfig,
    start=latent.start,
    features=latent.features,
    begin=at_handles,
    follow=track_features,
    finished=all_reached,
    supervise=_supervise,
    finish=latent.finish,
    preview=latent.preview,
    exact=True,
    mutual=latent.mutual,
)

"""A forward pass that predicts noise, and the mask term: shared by diffusion methods."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from dragnoise.kernels.latent_term import latent_term

from ..cache.structure import storable
from ..config import DragConfig
from ..diffusion.place import Place
from ..drag.method import Forward, State
from ..drag.scene import Scene
from ..drag.supervision import motion

__all__ = ["Prediction", "motion_and_mask"]

F = TypeVar("F", bound="Prediction")


@storable
@dataclass(frozen=True, eq=False)
class Prediction(Forward):
    """A forward pass through a diffusion model.

    Attributes:
        noise: The predicted noise eps, float32 [1, 4, H, W]; None where it was not wanted.
    """

    noise: Tensor | None

    def clean(self, place: Place) -> Tensor:
        """Return the predicted clean latent, x0 = (x - sqrt(1 - a) eps) / sqrt(a)."""
        assert self.noise is not None
        return place.schedule.clean(self.noise, place.latent, place.timestep)


def motion_and_mask(
    scene: Scene[Place, DragConfig], reference: Prediction, forward: Prediction, state: State
) -> Tensor:
    """Return the motion loss plus the mask term, lambda * sum |(x_prev - x_prev_0)(1 - M)|.

    The latent is constant, so x_prev is linear in eps: x_prev - x_prev_0 = c(t) (eps - eps_0).
    """
    loss = motion(scene, forward, state)
    if scene.keep is None or forward.noise is None or reference.noise is None:
        return loss
    slope = scene.place.schedule.slope(scene.place.timestep)
    term = latent_term(forward.noise, reference.noise, scene.keep, slope, scene.settings.lam)
    return loss + term


def with_output(scene: Scene[Any, Any]) -> Scene[Any, Any]:
    """Return the scene with forward passes that go on to the network's output."""
    return dataclasses.replace(scene, wants_output=True)

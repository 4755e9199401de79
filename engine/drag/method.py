"""What a drag method is: a row of functions. What differs between DragNoise, DragDiffusion, FreeDrag and DragGAN is which functions stand in the row.

start      what is constant during the drag, and the float32 variable that is optimised (a bottleneck, a latent, style vectors)
features   one forward pass: the feature map that is supervised, and the predicted noise where it is wanted
begin      the state before the first update: where the handles (or templates, waypoints) are
follow     where they are now
finished   whether to stop
supervise  the loss
propagate  how the optimum becomes an image: the noise predictor of the remaining denoising steps
prepare    the model as the method runs it, in every stage
gradient   of the loss, with respect to the variable
captured   whether an iteration reads nothing from the device, so that it can be captured as a graph and the stop condition read late
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import DragConfig
from ..diffusion.model import Model
from ..diffusion.schedule import Schedule
from ..diffusion.unet import Conditioning, Step

__all__ = ["Forward", "Method", "Place", "Predictor", "Scene", "Start", "State", "WarmStart"]

Predictor = Callable[[int, int, Tensor], Tensor]
"""(index of the step, timestep, latent) -> eps."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where in the denoising a drag happens: all that the drags on one image share.

    latent: float32 [1, 4, h, w] at step `index` of `schedule` (the inverted image). conditioning: prompt and schedule, as the network is told.
    """

    model: Model
    schedule: Schedule
    index: int
    latent: Tensor
    conditioning: Conditioning

    @property
    def timestep(self) -> int:
        return self.schedule.timesteps[self.index]

    @property
    def step(self) -> Step:
        """The step at which the drag happens."""
        return self.conditioning.at(self.timestep)

    @property
    def text(self) -> Tensor:
        """The text embedding [1, L, D]; with guidance [2, L, D], the negative one first."""
        return self.conditioning.embedding


@dataclass(frozen=True, eq=False)
class Start:
    """What a method has before its first update at a place: constants (its own), and the first value of the variable, float32."""

    constants: Any
    variable: Tensor


@dataclass(frozen=True, eq=False)
class Forward:
    """What one forward pass shows: features [1, C, h, w] (before any resizing; with guidance C is both texts') and eps float32 [1, 4, H, W], None
    where nobody wants it."""

    features: Tensor
    noise: Tensor | None

    def detach(self) -> "Forward":
        return Forward(self.features.detach(), None if self.noise is None else self.noise.detach())


@dataclass(frozen=True, eq=False)
class State:
    """What moves from iteration to iteration beside the variable: tensors of fixed shapes. handles: int64 [N, 2] now.

    Methods that keep more extend it.
    """

    handles: Tensor


@dataclass(frozen=True, eq=False)
class WarmStart:
    """A drag begun from an optimum that is at hand, not from the method's start.

    variable: that optimum. reference: what `Method.features` shows at the method's start, to go on with the same drag, and handles: int64 [N, 2],
    where the handles are now. Both None: a drag of its own, whose reference is the first forward pass and whose handles are where they were put.
    """

    variable: Tensor
    reference: Forward | None = None
    handles: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Scene(Place):
    """Everything that a drag is given and never changes.

    handles, targets: int64 [N, 2], (row, column) in the supervision map of size `resolution`, on the model's device.
    keep: float32 [1, 1, h, w], 1 where the picture must stay; None where nothing must (the mask term is then exactly nought).
    wants_noise: the predicted noise is wanted at every iteration (for previews), not only where the mask term needs it.
    origin: where the drag begins; None: at the method's own start.
    """

    handles: Tensor
    targets: Tensor
    resolution: tuple[int, int]
    keep: Tensor | None
    config: DragConfig
    wants_noise: bool = False
    origin: WarmStart | None = None


def _as_it_is(model: Model) -> Model:
    return model


def _of_the_variable_alone(loss: Tensor, variable: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, variable)
    return gradient


@dataclass(frozen=True)
class Method:
    """A row of the table. `Constants` below is what `start` gave; nobody but the method's own functions looks into it."""

    name: str
    source: str
    start: Callable[[Place], Start]
    features: Callable[[Scene, Any, Tensor], Forward]
    begin: Callable[[Scene, Forward], State]
    follow: Callable[[Scene, Forward, Forward, State], State]
    finished: Callable[[Scene, State], Tensor]
    supervise: Callable[[Scene, Forward, Forward, State], Tensor]
    propagate: Callable[[Scene, Any, Tensor], Predictor]
    prepare: Callable[[Model], Model] = _as_it_is
    gradient: Callable[[Tensor, Tensor], Tensor] = _of_the_variable_alone
    captured: bool = True

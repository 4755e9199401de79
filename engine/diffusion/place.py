"""The place in the denoising at which a drag happens."""

from dataclasses import dataclass

from torch import Tensor

from .model import Model
from .schedule import Schedule
from .unet import Conditioning, Step

__all__ = ["Place"]


@dataclass(frozen=True, eq=False)
class Place:
    """A step of the denoising with the inverted image at it, shared by all drags on one image.

    Attributes:
        model: The model as the drag's method runs it.
        schedule: Its DDIM schedule.
        index: The step of the schedule at which the drag happens.
        latent: The inverted image at that step, float32 [1, 4, h, w].
        conditioning: Prompt and schedule, as the network is told of them.
    """

    model: Model
    schedule: Schedule
    index: int
    latent: Tensor
    conditioning: Conditioning

    @classmethod
    def at(
        cls, model: Model, latent: Tensor, conditioning: Conditioning, active_steps: int
    ) -> "Place":
        """Return the place at a latent that `active_steps` of the schedule have inverted."""
        steps = len(conditioning.timesteps)
        return cls(model, model.schedule(steps), steps - active_steps, latent, conditioning)

    @property
    def timestep(self) -> int:
        """The diffusion time of the step, 0 to 999."""
        return self.schedule.timesteps[self.index]

    @property
    def active_steps(self) -> int:
        """Steps from here to the clean latent."""
        return len(self.schedule.timesteps) - self.index

    @property
    def step(self) -> Step:
        """The step, as the network is told of it."""
        return self.conditioning.at(self.timestep)

    @property
    def text(self) -> Tensor:
        """The text embedding [1, L, D]; with guidance [2, L, D], the negative one first."""
        return self.conditioning.embedding

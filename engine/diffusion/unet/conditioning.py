"""Hold what the network reads beside the latent: the step and the text."""

from dataclasses import dataclass

from torch import Tensor

from ...cache.structure import storable
from .guidance import UNGUIDED, Guidance

__all__ = ["Conditioning", "Step"]


@storable
@dataclass(frozen=True, eq=False)
class Step:
    """One step of a schedule, as the network reads it.

    Attributes:
        timestep: 0 to 999.
        times: Every residual block's projection of the time embedding [S].
        text: Every cross attention's keys and values [B, L, P].
        guidance: How far the text guides.
    """

    timestep: int
    times: Tensor
    text: Tensor
    guidance: Guidance = UNGUIDED


@storable
@dataclass(frozen=True, eq=False)
class Conditioning:
    """All that the network reads beside the latent, computed once for a prompt and a schedule.

    Attributes:
        timesteps: T of them, each 0 to 999.
        embedding: The text [B, L, D].
        text: Every cross attention's keys and values [B, L, P].
        times: Every residual block's projection of the time embedding, with its convolution's bias
            [T, S].
        guidance: With a scale above 1, the texts are [negative, positive] and B is 2.
    """

    timesteps: tuple[int, ...]
    embedding: Tensor
    text: Tensor
    times: Tensor
    guidance: Guidance = UNGUIDED

    def at(self, timestep: int) -> Step:
        """Return the step at one of the timesteps."""
        times = self.times[self.timesteps.index(timestep)]
        return Step(timestep, times, self.text, self.guidance)

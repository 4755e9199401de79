"""What the network is told beside the latent: the step and the text."""

from dataclasses import dataclass

from torch import Tensor

from ...cache.structure import storable
from .guidance import UNGUIDED, Guidance

__all__ = ["Conditioning", "Step"]


@storable
@dataclass(frozen=True, eq=False)
class Step:
    """One step of a schedule, as the network is told of it: what depends on the timestep [S], what depends on the text [B, L, P], and how far the
    text guides."""

    timestep: int
    times: Tensor
    text: Tensor
    guidance: Guidance = UNGUIDED


@storable
@dataclass(frozen=True, eq=False)
class Conditioning:
    """Everything that the network is told beside the latent, computed once for a prompt and a schedule.

    timesteps: T of them. embedding: the text [B, L, D]. text: every cross attention's keys and values [B, L, P].
    times: every residual block's projection of the time embedding, with its convolution's bias [T, S].
    guidance: with a scale above 1, the texts are [negative, positive] and B is 2.
    """

    timesteps: tuple[int, ...]
    embedding: Tensor
    text: Tensor
    times: Tensor
    guidance: Guidance = UNGUIDED

    def at(self, timestep: int) -> Step:
        return Step(timestep, self.times[self.timesteps.index(timestep)], self.text, self.guidance)

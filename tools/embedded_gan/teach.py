"""Teach a generator to draw: each random vector stands for a scene, and the scene can be drawn.

This is regression, no adversary takes part. Three things make a space of styles in which a drag
moves what it should:

- The first `PLACING` style vectors come from one random vector and decide the places alone; the
  others come from a second one and decide the colours alone.
- Half of the pictures are drawn towards the mean style vector, which stands for the places in the
  middle and leaves the colours: truncation has a meaning, and style space is straight.
- Style vectors are disturbed, each row on its own: what stands for nothing does nothing.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dragnoise.bench.world.scenes import Land
from dragnoise.engine.gan.architecture import SMALLEST, Architecture
from dragnoise.engine.gan.generator import Generator, Synthesis
from dragnoise.engine.gan.layers import enlarged

from . import lessons

PLACING = 6
"""The style vectors that decide the places: those that a drag changes."""
SQUARES = 2.0
"""How often the mean square counts in the loss."""
HELD_OUT = 777
"""Seed of the pictures that are never taught."""


@dataclass(frozen=True)
class Plan:
    """Hold what decides the result of a teaching.

    Attributes:
        channels: Channels at each resolution, from 4 x 4 on.
        z: Width of the random vector.
        w: Width of a style vector.
        mapping: Layers of the mapping network.
        pictures: Pictures that are taught in all.
        batch: Pictures an update.
        rate: Adam's learning rate at first; it falls to nothing over the last third.
        disturbance: Deviation of what is added to style vectors, as a share of their own.
        halving_pictures: Pictures after which the running average has forgotten half.
        growth: At which shares of the pictures the last resolutions join: places are learned on
            small pictures, in a quarter of the time.
        seed: Of the pictures.
    """

    channels: tuple[int, ...] = (128, 128, 128, 64, 32, 16)
    z: int = 16
    w: int = 64
    mapping: int = 3
    pictures: int = 120_000
    batch: int = 8
    rate: float = 1.6e-2
    disturbance: float = 0.1
    halving_pictures: float = 2_000.0
    growth: tuple[float, ...] = (0.6, 0.75)
    seed: int = 0

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.channels, self.z, self.w, self.mapping, 1.0, noise=False)


class Teacher:
    """A teacher that holds the generator, its optimiser and the running average.

    Attributes:
        average: The running average of the generator: this is the result.
        seen: Pictures taught.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype = torch.float32) -> None:
        self.plan = plan
        self.dtype = dtype
        self.generator = Generator(plan.architecture)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimiser = torch.optim.Adam(
            self.generator.parameters(), plan.rate, (0.9, 0.99), fused=True
        )
        self.seen = 0

    def update(self) -> float:
        """Teach one batch; return the loss."""
        self.optimiser.param_groups[0]["lr"] = self._rate()
        rng = np.random.default_rng((self.plan.seed, self.seen))
        z = lessons.normalised(rng.standard_normal((2 * self.plan.batch, self.plan.z)))
        shares = np.minimum(rng.uniform(0.5, 1.5, self.plan.batch), 1)
        places, colours = np.split(z, 2)
        scenes = list(map(lessons.scene, places * shares[:, None], colours))
        drawn, weights = pictures(scenes)
        rows = self._rows(_floats(z), _floats(shares), rng)
        made = synthesised(self.generator.synthesis, rows, self.blocks, self.dtype)
        factor = drawn.shape[-1] // made.shape[-1]
        loss = difference(made, avg_pool2d(drawn, factor), avg_pool2d(weights, factor))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.seen += self.plan.batch
        self._hush()
        self._follow()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Return everything that the next update depends on."""
        parts = self._parts().items()
        return {"seen": self.seen} | {name: part.state_dict() for name, part in parts}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.seen = state["seen"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        names = ("generator", "average", "optimiser")
        return {name: getattr(self, name) for name in names}

    @property
    def blocks(self) -> int:
        """How many resolutions are taught by now: the places are learned on small pictures."""
        left = sum(self.seen < share * self.plan.pictures for share in self.plan.growth)
        return len(self.plan.channels) - left

    def _rate(self) -> float:
        left = 1 - self.seen / self.plan.pictures
        return self.plan.rate * min(1.0, max(3 * left, 0.01), (self.seen + 1) / 1000)

    def _rows(self, z: Tensor, shares: Tensor, rng: np.random.Generator) -> Tensor:
        """Return w+ [B, rows, w] of the two halves of z: places, then colours."""
        w = self.generator.mapping(z)
        self.generator.mean.lerp_(w.detach().mean(0), 0.01)
        w = torch.lerp(self.generator.mean, w, shares.repeat(2)[:, None])
        places, colours = w[:, None].chunk(2)
        count = self.plan.architecture.rows
        both = places.expand(-1, PLACING, -1), colours.expand(-1, count - PLACING, -1)
        rows = torch.cat(both, 1)
        noise = _floats(rng.standard_normal(rows.shape))
        return rows + self.plan.disturbance * w.detach().std() * noise

    @torch.no_grad()
    def _hush(self) -> None:
        """Keep what stands for nothing in z from the styles."""
        weight = self.generator.get_parameter("mapping.layers.0.weight")
        weight[:, len(lessons.FACTORS) :] = 0

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average; at first it forgets faster."""
        halving = min(self.plan.halving_pictures, 0.05 * self.seen)
        share = 1 - 0.5 ** (self.plan.batch / halving)
        averages = list[Tensor](self.average.parameters())
        torch._foreach_lerp_(averages, list[Tensor](self.generator.parameters()), share)

    @torch.no_grad()
    def settle(self, count: int = 8192) -> Generator:
        """Measure the average generator's mean style vector; return that generator."""
        draws = torch.Generator().manual_seed(7)
        z = torch.randn(count, self.plan.z, generator=draws)
        self.average.mean.copy_(self.average.mapping(z).mean(0))
        return self.average


def synthesised(network: Synthesis, rows: Tensor, blocks: int, dtype: torch.dtype) -> Tensor:
    """Make pictures as `Synthesis` does, but of the first resolutions alone."""
    value = network.start.to(dtype).expand(len(rows), -1, -1, -1)
    value = value.contiguous(memory_format=torch.channels_last)
    picture = torch.zeros(len(rows), 3, SMALLEST // 2, SMALLEST // 2)
    layers: Any = network.layers
    for index in range(blocks):
        for number in range(max(0, 2 * index - 1), 2 * index + 1):
            value = layers[number](value, rows[:, number])
        picture = enlarged(picture) + network.colours[index](value, rows[:, 2 * index + 1])
    return picture


def _floats(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).float()


def pictures(scenes: Sequence[Land]) -> tuple[Tensor, Tensor]:
    """Draw scenes, float32 [N, 3, 128, 128] in -1..1; return them and their weights."""
    levels, weights = map(torch.from_numpy, lessons.drawn(scenes))
    return levels.float() / 127.5 - 1, weights


def difference(made: Tensor, drawn: Tensor, weights: Tensor) -> Tensor:
    """Return the mean absolute and squared differences at four sizes, and those of the slopes.

    The squares are for what is small and moves: at every pixel its median is its background.
    """
    apart = (made - drawn) * weights
    loss = (apart[:, :, 1:] - apart[:, :, :-1]).abs().mean()
    loss = loss + (apart[:, :, :, 1:] - apart[:, :, :, :-1]).abs().mean()
    for _ in range(4):
        loss = loss + apart.abs().mean() + SQUARES * apart.square().mean()
        apart = avg_pool2d(apart, 2)
    return loss


@torch.no_grad()
def held_out(generator: Generator, blocks: int, count: int = 64) -> tuple[Tensor, Tensor, float]:
    """Return drawn and made pictures that were never taught, and the mean PSNR in dB."""
    rng = np.random.default_rng((HELD_OUT, 1))
    z = lessons.normalised(rng.standard_normal((count, generator.architecture.z)))
    drawn, _ = pictures(list(map(lessons.scene, z, z)))
    rows = generator.rows(_floats(z))
    parts = rows.split(16)
    made = torch.cat([synthesised(generator.synthesis, p, blocks, torch.float32) for p in parts])
    made = made.clamp(-1, 1)
    drawn = avg_pool2d(drawn, drawn.shape[-1] // made.shape[-1])
    errors = ((made - drawn) / 2).square().mean((1, 2, 3))
    return drawn, made, float((-10 * errors.log10()).mean())

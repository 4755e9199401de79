"""What a training sample is: three kinds in fixed shares, so that the bottleneck comes to decide what is in the picture.

plain     a noisy latent of picture B at a time t, its own bottleneck, B's noise: ordinary diffusion.
pair      the bottleneck of B at a high time; the latent on the exact path that leads from A's noisy latent there to B: a drag that succeeded.
          Three in five have gone astray, towards a blend of A and B as a first hesitant step leads to, and the noise to predict leads back to B:
          without these a double exposure, once there, stays.
constant  the same with A = B: the bottleneck of the drag's step held through the later steps.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .shards import Pairs

BATCH = 24
CONSTANT = 2
DRAG_TIME = 681
WORDLESS = 0.15
ASTRAY = 0.6


@dataclass(frozen=True, eq=False)
class Batch:
    """The `moved` last samples take their bottleneck from `source` at `high`; the others from themselves.

    noisy, noise, clean [B, 4, 32, 32]; time [B]; tokens [B, L]; source [moved, 4, 32, 32]; high [moved]; blur [moved, 1, 1, 1] is how much
    noise, relative to its deviation, the bottleneck gets.
    """

    noisy: Tensor
    noise: Tensor
    clean: Tensor
    time: Tensor
    tokens: Tensor
    source: Tensor
    high: Tensor
    blur: Tensor

    @property
    def moved(self) -> int:
        return len(self.high)


def draw_batch(
    pairs: Pairs, alphas: Tensor, pair_share: float, generator: torch.Generator, size: int = BATCH
) -> Batch:
    """A random batch with round(pair_share * size) pairs; without pairs there are no constant samples either."""
    paired = round(pair_share * size)
    moved = paired + (CONSTANT if paired else 0)
    chosen = torch.randint(len(pairs), (size,), generator=generator)
    flipped = torch.randint(2, (size,), generator=generator)
    here, there = pairs.latents[chosen, flipped].float(), pairs.latents[chosen, 1 - flipped].float()
    noise = torch.randn(here.shape, generator=generator)
    uniform = torch.rand((9, size), generator=generator)
    time = torch.where(uniform[0] < 0.4, 500 + 500 * uniform[1], 800 * uniform[1])
    high = torch.where(uniform[2] < 0.5, float(DRAG_TIME), 550 + 350 * uniform[3])
    later = torch.where(uniform[4] < 0.15, high, high * uniform[1])
    rank = torch.arange(size)
    is_moved, is_pair = rank >= size - moved, rank >= size - paired
    time = torch.where(is_moved, later, time).long()
    high = torch.where(is_moved, high.long(), time)
    start, now = _wide(alphas[high]), _wide(alphas[time])
    offset = torch.where(_wide(is_pair), there - here, torch.zeros(()))
    astray = torch.where(_wide(uniform[7] < ASTRAY), _wide(uniform[8]), 0.0) * 0.6
    astray = torch.minimum(astray, 0.5 * ((1 - now) / now).sqrt())
    path = noise + (start / (1 - start)).sqrt() * (1 - astray) * offset
    noisy = now.sqrt() * (here + astray * offset) + (1 - now).sqrt() * path
    path = path + (now / (1 - now)).sqrt() * astray * offset
    source = (start.sqrt() * here + (1 - start).sqrt() * noise)[size - moved :]
    tokens = pairs.tokens[chosen].long()
    tokens[uniform[5] < WORDLESS] = torch.tensor([0] + [1] * (tokens.shape[1] - 1))
    blur = (2 * uniform[6] - 1).clamp(min=0)[size - moved :] * 0.3
    return Batch(noisy, path, here, time, tokens, source, high[size - moved :], _wide(blur))


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def learning_rate(rate: float, step: int, done: float | None) -> float:
    """Warm-up over 100 steps; with `done`, the share of the last run that is over, a cosine down to 5 %."""
    decay = 1.0 if done is None else 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rate * min(1.0, (step + 1) / 100) * decay

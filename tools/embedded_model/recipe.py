"""Draw training samples of three kinds in fixed shares.

They make the bottleneck decide what is in the picture.

plain     A noisy latent of picture B at a time t, its own bottleneck and noise: ordinary
          diffusion.
pair      The bottleneck of B at a high time, and the latent on the exact path from A's noisy latent
          at that time to B: a drag that succeeded. Three in five have gone astray, towards a blend
          of A and B as a first hesitant step makes it, and the noise to predict leads back to B.
          Without these a double exposure stays once it is there.
constant  The same with A = B: the bottleneck of the drag's step held through the later steps.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .shards import Pairs

BATCH = 24
CONSTANT = 1 / 12
"""The share of constant samples."""

DRAG_TIME = 681
WORDLESS = 0.15
ASTRAY = 0.6
OPEN = 0.25
"""The share of samples whose deep skips are open, as Stable Diffusion's are."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of samples; the last `moved` of them take their bottleneck from `source` at `high`.

    Attributes:
        noisy: The latents that are denoised, [B, 4, 32, 32].
        noise: The noise to predict, [B, 4, 32, 32].
        clean: The latents without noise, [B, 4, 32, 32].
        time: Diffusion times, int64 [B].
        tokens: Captions, int64 [B, LENGTH].
        source: The latents that moved samples take their bottleneck from, [moved, 4, 32, 32].
        high: The times of `source`, int64 [moved].
        openness: 1 where a sample's deep skips are read, 0 where they are closed, [B, 1, 1, 1].
        blur: Noise added to a moved bottleneck, in its standard deviations, [moved, 1, 1, 1].
    """

    noisy: Tensor
    noise: Tensor
    clean: Tensor
    time: Tensor
    tokens: Tensor
    source: Tensor
    high: Tensor
    openness: Tensor
    blur: Tensor

    @property
    def moved(self) -> int:
        return len(self.high)


def draw_batch(
    pairs: Pairs, alphas: Tensor, pair_share: float, generator: torch.Generator, size: int = BATCH
) -> Batch:
    """Draw a random batch, on the device that everything given lies on.

    Args:
        pairs: The training data.
        alphas: The schedule's cumulative products of alpha, [1000].
        pair_share: The share of pairs; without any there are no constant samples either.
        generator: Draws every random number.
        size: Samples in the batch.
    """
    drawn: dict[str, Any] = {"generator": generator, "device": generator.device}
    paired = round(pair_share * size)
    moved = paired + round(CONSTANT * size) if paired else 0
    chosen = torch.randint(len(pairs), (size,), **drawn)
    flipped = torch.randint(2, (size,), **drawn)
    here = pairs.latents[chosen, flipped].float()
    there = pairs.latents[chosen, 1 - flipped].float()
    noise = torch.randn(here.shape, **drawn)
    uniform = torch.rand((10, size), **drawn)
    rank = torch.arange(size, device=generator.device)
    time, high = _times(uniform, rank >= size - moved)
    start = _wide(alphas[high])
    now = _wide(alphas[time])
    offset = torch.where(_wide(rank >= size - paired), there - here, 0.0)
    astray = torch.where(_wide(uniform[7] < ASTRAY), _wide(uniform[8]), 0.0) * 0.6
    astray = torch.minimum(astray, 0.5 * ((1 - now) / now).sqrt())
    path = noise + (start / (1 - start)).sqrt() * (1 - astray) * offset
    source = start.sqrt() * here + (1 - start).sqrt() * noise
    blur = (2 * uniform[6] - 1).clamp(min=0) * 0.3
    return Batch(
        noisy=now.sqrt() * (here + astray * offset) + (1 - now).sqrt() * path,
        noise=path + (now / (1 - now)).sqrt() * astray * offset,
        clean=here,
        time=time,
        tokens=_captions(pairs.tokens[chosen].long(), uniform[5]),
        source=source[size - moved :],
        high=high[size - moved :],
        openness=_wide((uniform[9] < OPEN).float()),
        blur=_wide(blur[size - moved :]),
    )


def _times(uniform: Tensor, is_moved: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the times of the samples, and those of their bottlenecks."""
    time = torch.where(uniform[0] < 0.4, 500 + 500 * uniform[1], 800 * uniform[1])
    high = torch.where(uniform[2] < 0.5, float(DRAG_TIME), 550 + 350 * uniform[3])
    later = torch.where(uniform[4] < 0.15, high, high * uniform[1])
    time = torch.where(is_moved, later, time).long()
    return time, torch.where(is_moved, high.long(), time)


def _captions(tokens: Tensor, uniform: Tensor) -> Tensor:
    """Empty some of the captions, for guidance."""
    tokens[uniform < WORDLESS] = tokens.new_tensor([0] + [1] * (tokens.shape[1] - 1))
    return tokens


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def learning_rate(rate: float, step: int, done: float | None) -> float:
    """Return the learning rate of a step: warm-up over 100 steps, then `rate`.

    With `done`, the share (0..1) of the last run that is over, it decays along a cosine to 5 %.
    """
    decay = 1.0 if done is None else 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rate * min(1.0, (step + 1) / 100) * decay

"""Training data: pairs of scenes as latents and tokens, in shards of a work folder. A shard is named by its seed and made once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from . import words, world

PAIRS = 2000


@dataclass(frozen=True, eq=False)
class Pairs:
    """latents float16 [N, 2, 4, 32, 32], scaled to about unit deviation; tokens int16 [N, LENGTH], the same for both ends of a pair."""

    latents: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Sequence[world.Pixels]) -> Tensor:
    """float32 latents [N, 4, 32, 32] of pictures, as the model sees them."""
    parts = []
    for first in range(0, len(pictures), 50):
        batch = (
            torch.from_numpy(np.stack(pictures[first : first + 50]))
            .permute(0, 3, 1, 2)
            .float()
            .div(127.5)
            .sub(1)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mean = vae.encode(batch.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        parts.append(mean.float() * vae.config.scaling_factor)
    return torch.cat(parts)


def tokens(captions: Sequence[str]) -> Tensor:
    """Token numbers [N, LENGTH], padded as the pipeline pads them."""
    found: Tensor = words.tokenizer()(
        list(captions),
        padding="max_length",
        max_length=words.LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return found


def make_shard(path: Path, vae: AutoencoderKL, seed: int, pairs: int = PAIRS) -> None:
    """Draw, encode and write one shard; it appears whole or not at all."""
    rng = np.random.default_rng((20261, seed))
    scenes = [world.draw_scene(rng) for _ in range(pairs)]
    partners = [world.partner(scene, rng) for scene in scenes]
    latents = (
        encode(vae, [world.render(scene)[0] for scene in (*scenes, *partners)])
        .view(2, pairs, 4, 32, 32)
        .transpose(0, 1)
    )
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            latents=latents.half().numpy(),
            tokens=tokens([world.caption(scene) for scene in scenes]).short().numpy(),
        )
    os.replace(part, path)


def read_shards(folder: Path) -> Pairs:
    """All the shards that are there."""
    found = [np.load(path) for path in sorted(folder.glob("shard-*.npz"))]
    return Pairs(
        *(
            torch.from_numpy(np.concatenate([shard[name] for shard in found]))
            for name in ("latents", "tokens")
        )
    )

"""Make and read training data: pairs of scenes as latents and tokens, in shards of a work folder.

A shard is named by its seed and made once.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from dragnoise.bench.world import painting

from . import drawing, words

PAIRS = 2000
AT_ONCE = 200
"""Pictures that are encoded together."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of scenes as the model reads them.

    Attributes:
        latents: float16 [N, 2, 4, 32, 32], scaled to about unit deviation.
        tokens: int16 [N, LENGTH], the same for both ends of a pair.
    """

    latents: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Sequence[painting.Pixels]) -> Tensor:
    """Encode pictures as latents, float32 [N, 4, 32, 32]."""
    parts = []
    for first in range(0, len(pictures), AT_ONCE):
        stack = torch.from_numpy(np.stack(pictures[first : first + AT_ONCE])).to(vae.device)
        batch = stack.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        with torch.autocast(vae.device.type, dtype=torch.bfloat16):
            mean = vae.encode(batch.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        parts.append(mean.float().cpu() * vae.config.scaling_factor)
    return torch.cat(parts)


def tokens(captions: Sequence[str]) -> Tensor:
    """Return token numbers [N, LENGTH], padded as the pipeline pads them."""
    ids: Tensor = words.tokenizer()(
        list(captions),
        padding="max_length",
        max_length=words.LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


def make_shards(
    paths: Sequence[Path], vae: AutoencoderKL, seeds: Sequence[int], pairs: int = PAIRS
) -> Iterator[Path]:
    """Draw, encode and write shards of `pairs` pairs each; each appears whole or not at all.

    As many processes draw as there are cores, a shard each (0.2 GB of pictures); this one encodes
    and yields the paths one by one.
    """
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(min(len(paths), cores), get_context("spawn")) as processes:
        for first in range(0, len(paths), cores):
            some = slice(first, first + cores)
            drawn = processes.map(drawing.draw, seeds[some], itertools.repeat(pairs))
            for path, (pictures, captions) in zip(paths[some], drawn, strict=True):
                _write(path, encode(vae, pictures), tokens(captions))
                yield path


def _write(path: Path, latents: Tensor, numbers: Tensor) -> None:
    """Write a shard: latents of all first pictures, then of their partners, and the tokens."""
    pairs = latents.unflatten(0, (2, -1)).transpose(0, 1)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, latents=pairs.half().numpy(), tokens=numbers.short().numpy())
    os.replace(part, path)


def read_shards(folder: Path) -> Pairs:
    """Read all the shards of a work folder."""
    shards = [np.load(path) for path in sorted(folder.glob("shard-*.npz"))]
    latents = np.concatenate([shard["latents"] for shard in shards])
    numbers = np.concatenate([shard["tokens"] for shard in shards])
    return Pairs(torch.from_numpy(latents), torch.from_numpy(numbers))

"""Teach a VAE's decoder to draw this world's pictures sharper.

The encoder stays as it is, so latents that were made with it stay valid.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from dragnoise.bench.world import painting
from dragnoise.bench.world import scenes as world

from .recipe import learning_rate
from .shards import encode

BATCH = 8
SEED = 31


def decoder_error(vae: AutoencoderKL, scenes: list[world.Scene]) -> torch.Tensor:
    """Return the absolute plus ten times the squared error of decoded pictures in -1..1."""
    pictures = [painting.render(scene)[0] for scene in scenes]
    wanted = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = encode(vae, pictures) / vae.config.scaling_factor
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drawn = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
    error = drawn.float() - wanted
    loss: torch.Tensor = error.abs().mean() + 10 * error.square().mean()
    return loss


def finetune_decoder(
    vae: AutoencoderKL, seconds: float, report: Callable[[str], None] = print
) -> None:
    """Train post_quant_conv and the decoder for `seconds`; the rate decays to 5 %."""
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    rng = np.random.default_rng(SEED)
    begun = time.monotonic()
    step = 0
    while (spent := time.monotonic() - begun) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(5e-4, step, spent / seconds)
        loss = decoder_error(vae, [world.draw_scene(rng) for _ in range(BATCH)])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.1)
        optimiser.step()
        step += 1
        if step % 50 == 0:
            report(f"decoder step {step}, {spent:.0f} s, loss {loss.item():.4f}")
    for weight in weights:
        weight.requires_grad_(False)


def save_vae(vae: AutoencoderKL, folder: Path) -> None:
    """Write the VAE as `folder`/vae, whole or not at all."""
    part = folder / "vae.part"
    vae.save_pretrained(part)
    os.replace(part, folder / "vae")

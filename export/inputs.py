"""Inputs to try a part with.

They are noise where a part reads noise; where it reads features, what the parts before it make of
that noise.
"""

import torch
from torch import Tensor

from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.parts import PARTS, VAE_DECODER
from dragnoise.engine.exported import Extent, signature

__all__ = ["example"]

_TIMESTEP = 481
"""A timestep in the middle of the schedule."""


@torch.no_grad()
def example(model: Model, part: str, extent: Extent, seed: int = 0) -> dict[str, Tensor]:
    """Return inputs of a part by name, on the model's device; the same for the same seed.

    Features are in the model's precision.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = signature(model, part, extent).inputs
    if "pixels" in shapes:
        return {
            "pixels": (torch.rand(shapes["pixels"], generator=generator) * 2 - 1).to(model.device)
        }
    latent = torch.randn(
        signature(model, VAE_DECODER.name, extent).inputs["latent"], generator=generator
    ).to(model.device)
    if PARTS[part].network == "vae":
        return {"latent": latent}
    unet = model.unet
    length = model.tokenizer.model_max_length
    width = unet.network.config["cross_attention_dim"]
    text = torch.randn(extent.batch, length, width, generator=generator).to(model.device)
    step = unet.condition((_TIMESTEP,), text).at(_TIMESTEP)
    down = unet.down(latent, step)
    skips = {f"skip_{number}": skip for number, skip in enumerate(down.skips)}
    values = {
        "latent": latent,
        "times": step.times,
        "text_kv": step.text,
        "bottom": down.bottom,
        **skips,
    }
    if "bottleneck" in shapes:
        values["bottleneck"] = unet.middle(down)
    return {name: values[name].contiguous() for name in shapes}

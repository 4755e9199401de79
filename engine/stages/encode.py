"""Image to latent, prompt to text embedding, prompt and schedule to what the network is told."""

import warnings

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning
from ..errors import InputWarning

__all__ = ["condition", "embed", "encode"]


@torch.no_grad()
def encode(model: Model, pixels: Tensor) -> Tensor:
    """float32 latent [1, 4, h, w], the mean of the VAE's posterior times its scaling factor, of pixels [1, 3, H, W] in -1..1."""
    mean = model.autoencoder.encode(pixels.to(model.device, model.vae.dtype))
    scaling: float = model.vae.config["scaling_factor"]
    return mean.float() * scaling


@torch.no_grad()
def embed(model: Model, prompt: str, negative_prompt: str | None = None) -> Tensor:
    """Text embedding [1, L, D] in the U-Net's precision, L the tokenizer's `model_max_length`; beside a negative prompt [2, L, D], that one first.

    A longer prompt is cut there, with an InputWarning that names the tokens seen.
    """
    prompts = (prompt,) if negative_prompt is None else (negative_prompt, prompt)
    return torch.cat([_embedded(model, one) for one in prompts])


def _embedded(model: Model, prompt: str) -> Tensor:
    length = model.tokenizer.model_max_length
    count = len(model.tokenizer(prompt, truncation=False, verbose=False).input_ids)
    if count > length:
        warnings.warn(
            f"the prompt has {count} tokens, the model reads {length}; the rest is ignored",
            InputWarning,
            stacklevel=3,
        )
    ids = model.tokenizer(
        prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    embedding: Tensor = model.text_encoder(ids.to(model.device))[0]
    return embedding.to(model.dtype)


def condition(model: Model, text: Tensor, steps: int, guidance: float = 1.0) -> Conditioning:
    """Keys and values of the text [1, L, D] and projections of every timestep of a schedule of `steps` steps: once, for every pass of an edit.

    guidance: how far every pass is drawn from the negative to the positive text [2, L, D]; 1: one text, one pass.
    """
    return model.unet.condition(model.schedule(steps).timesteps, text, guidance)

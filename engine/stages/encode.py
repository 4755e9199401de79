"""Image to latent, prompt to text embedding, prompt and schedule to what the network is told."""

import itertools
from typing import Any

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning
from ..run import kept

__all__ = ["condition", "embed", "encode", "prompt_notices"]


@kept(on_disk=True)
@torch.no_grad()
def encode(model: Model, pixels: Tensor) -> Tensor:
    """Return the latent of pixels: the mean of the VAE's posterior times its scaling factor.

    Args:
        pixels: [1, 3, H, W] in -1..1.

    Returns:
        float32 [1, 4, h, w].
    """
    mean = model.autoencoder.encode(pixels.to(model.device, model.vae.dtype))
    scaling: float = model.vae.config["scaling_factor"]
    return mean.float() * scaling


@kept(on_disk=True)
@torch.no_grad()
def embed(model: Model, prompt: str, negative_prompt: str | None = None) -> Tensor:
    """Return the text embedding, in the U-Net's precision. A longer prompt is cut.

    Returns:
        [1, L, D], L the tokenizer's `model_max_length`; beside a negative prompt [2, L, D], the
        negative one first.
    """
    prompts = (prompt,) if negative_prompt is None else (negative_prompt, prompt)
    return torch.cat([_embedding(model, text) for text in prompts])


def prompt_notices(model: Model, *prompts: str) -> tuple[str, ...]:
    """Return a notice for every prompt that is longer than the model reads."""
    length = model.tokenizer.model_max_length
    notices = []
    for prompt in prompts:
        text = _spelled_out(model.tokenizer, prompt)
        count = len(model.tokenizer(text, truncation=False, verbose=False).input_ids)
        if count > length:
            rest = f"the model reads {length}; the rest is ignored"
            notices.append(f"the prompt has {count} tokens, {rest}")
    return tuple(notices)


def _embedding(model: Model, prompt: str) -> Tensor:
    tokens = model.tokenizer(
        _spelled_out(model.tokenizer, prompt),
        padding="max_length",
        max_length=model.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    embedding: Tensor = model.text_encoder(tokens.input_ids.to(model.device))[0]
    return embedding.to(model.dtype)


def _spelled_out(tokenizer: Any, prompt: str) -> str:
    """Write a learned word of several vectors (textual inversion) as all of its tokens.

    diffusers calls them `<word>`, `<word>_1`, `<word>_2`, ...; the prompt has the first alone.
    """
    known = getattr(tokenizer, "added_tokens_encoder", {})
    learned = [word for word in known if f"{word}_1" in known]
    if not learned:
        return prompt
    read = set(tokenizer.tokenize(prompt))
    for word in sorted(read.intersection(learned)):
        more = itertools.takewhile(known.__contains__, (f"{word}_{n}" for n in itertools.count(1)))
        prompt = prompt.replace(word, " ".join((word, *more)))
    return prompt


@kept(on_disk=False)
def condition(model: Model, text: Tensor, steps: int, guidance: float = 1.0) -> Conditioning:
    """Return what the network is told beside the latent, once for every pass of an edit.

    Keys and values of the text, and projections of every timestep of the schedule.

    Args:
        text: [1, L, D]; with guidance the negative and the positive text, [2, L, D].
        steps: Steps of the whole schedule.
        guidance: How far every pass is drawn from the negative to the positive text; 1: one text,
            one pass.
    """
    return model.unet.condition(model.schedule(steps).timesteps, text, guidance)

"""Networks that were read, as a `Model`: frozen, placed, and checked to belong together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...config import DragConfig
from ...errors import ModelError
from ..model import Model
from ..unet import UNet
from .folder import COMPONENTS, NETWORKS

if TYPE_CHECKING:
    pass

__all__ = ["build_model"]


def build_model(
    name: str,
    parts: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
    defaults: DragConfig,
) -> Model:
    """The networks frozen, in evaluation mode and, if `dtype` is given, moved to their device and precision."""
    for part in NETWORKS:
        network = parts[part].requires_grad_(False).eval()
        if dtype is not None:
            network.to(device, torch.float32 if part == "vae" and dtype == torch.float16 else dtype)
    unet, vae, text_encoder, tokenizer, scheduler = (parts[part] for part in COMPONENTS)
    model = Model(
        name, UNet(unet), vae, text_encoder, tokenizer, dict(scheduler.config), device, defaults
    )
    if not hasattr(vae.config, "scaling_factor") or vae.config.get("latent_channels") != 4:
        raise ModelError(
            f"the VAE of {name!r} is not Stable Diffusion's (4 latent channels and a scaling factor); give a 1.x or 2.x model"
        )
    if text_encoder.config.hidden_size != unet.config["cross_attention_dim"]:
        seen = f"the text encoder of {name!r} has width {text_encoder.config.hidden_size}, its U-Net reads {unet.config['cross_attention_dim']}"
        raise ModelError(f"{seen}; give the two that belong together")
    model.schedule(model.defaults.steps)
    return model

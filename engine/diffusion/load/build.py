"""Build a `Model` of networks that were read: frozen, placed, and checked to belong together."""

from collections.abc import Mapping
from typing import Any

import torch

from ...config import DragConfig
from ...errors import ModelError
from ..model import LoadedFrom, Model
from ..unet import UNet
from ..weights import Weights
from .folder import NETWORKS

__all__ = ["build_model"]

_OVERFLOWING = ("vae",)
"""Networks that overflow in float16: they run in float32 then."""


def build_model(
    name: str,
    components: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
    defaults: DragConfig,
    loaded_from: LoadedFrom | None = None,
) -> Model:
    """Freeze networks, move them, and return them as a model.

    Args:
        name: For messages and results.
        components: By name, as `COMPONENTS` lists them.
        device: Where they go.
        dtype: Their precision; None to leave precision and device as they are.
        defaults: The drag settings that the model brings.
        loaded_from: None where it came from no file.

    Raises:
        ModelError: Where they are not Stable Diffusion's, or do not belong together.
    """
    for network in NETWORKS:
        frozen = components[network].requires_grad_(False).eval()
        if dtype is not None:
            overflows = dtype == torch.float16 and network in _OVERFLOWING
            frozen.to(device, torch.float32 if overflows else dtype)
    unet = components["unet"]
    model = Model(
        name,
        UNet(unet),
        components["vae"],
        components["text_encoder"],
        components["tokenizer"],
        dict(components["scheduler"].config),
        device,
        defaults,
        loaded_from=loaded_from,
        weights=Weights({name: components[name] for name in NETWORKS}, components["tokenizer"]),
    )
    _check(model)
    return model


def _check(model: Model) -> None:
    vae = model.vae.config
    if not hasattr(vae, "scaling_factor") or vae.get("latent_channels") != 4:
        raise ModelError(
            f"the VAE of {model.name!r} is not Stable Diffusion's (4 latent channels and a scaling "
            "factor); give a 1.x or 2.x model"
        )
    written = model.text_encoder.config.hidden_size
    read = model.unet.network.config["cross_attention_dim"]
    if written != read:
        raise ModelError(
            f"the text encoder of {model.name!r} has width {written}, its U-Net reads {read}; "
            "give the two that belong together"
        )
    model.schedule(model.defaults.steps)

"""Build a `Model` of networks that were read and checked: frozen and placed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...config import DragConfig
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
        ModelError: Where the schedule is none that can be inverted.
        ConfigError: Where the drag settings do not suit it.
    """
    for network in NETWORKS:
        frozen = components[network].requires_grad_(False).eval()
        if dtype is not None:
            overflows = dtype == torch.float16 and network in _OVERFLOWING
            nn.Module.to(frozen, device, torch.float32 if overflows else dtype)  # no advice logged
    unet = components["unet"]
    model = Model(
        name,
        UNet(unet),
        components["vae"],
        components["text_encoder"],
        components["tokenizer"],
        _settings(components["scheduler"]),
        device,
        defaults,
        loaded_from=loaded_from,
        weights=Weights({name: components[name] for name in NETWORKS}, components["tokenizer"]),
    )
    model.schedule(model.defaults.steps)
    return model


def _settings(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's configuration without diffusers' notes.

    Their order is another each time, and this is part of the model's digest.
    """
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}

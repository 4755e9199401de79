"""Build a `Model` of networks that were read and checked: frozen and placed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...config import DragConfig
from ..model import LoadedFrom, Model
from ..unet import HeldNetwork, UNet
from ..weights import Weights
from .folder import NETWORKS

__all__ = ["build_model", "lay_out", "place"]

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
            place(frozen, device, torch.float32 if overflows else dtype)
    unet = components["unet"]
    model = Model(
        name,
        UNet(HeldNetwork(unet, packable=loaded_from is not None)),
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


def place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a network to a device, its weights laid out as they are read there."""
    nn.Module.to(network, device, dtype)  # the networks' own `to` logs advice
    if device.type == "cuda":
        lay_out(network)


def lay_out(network: nn.Module) -> None:
    """Lay out the weights of convolutions in channels_last, and of self-attentions in a row.

    On CUDA maps lie so, and cuDNN would lay out other weights anew at every call: that was a fifth
    of an edit's time on an H100. Weights in a row can be read as one: `Operators.joint`.
    """
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    for name, module in network.named_modules():
        if name.endswith(".attn1"):
            _put_in_a_row([module.get_parameter(f"{to}.weight") for to in ("to_k", "to_v", "to_q")])


def _put_in_a_row(weights: list[nn.Parameter]) -> None:
    """Let weights lie one after the other in one memory, where they have one shape."""
    if len({weight.shape for weight in weights}) == 1:
        row = torch.cat([weight.data for weight in weights])
        for weight, part in zip(weights, row.chunk(len(weights)), strict=True):
            weight.data = part


def _settings(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's configuration without diffusers' notes.

    Their order is another each time, and this is part of the model's digest.
    """
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}

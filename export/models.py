"""Models as they are exported: in any precision, on a machine that cannot run it, with an adapter merged."""

import dataclasses
import os

import torch
from torch import nn

from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.lora.adapter import Adapter, AdapterUse
from dragnoise.engine.diffusion.lora.merge import Adapters
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.diffusion.weights import Weights
from dragnoise.engine.exported import DTYPES

__all__ = ["in_float32", "in_precision", "model_for_export"]


def model_for_export(
    source: str | os.PathLike[str] | None,
    dtype: str,
    *,
    config: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
    adapter: str | os.PathLike[str] | None = None,
    adapter_scale: float = 1.0,
) -> Model:
    """The model that an editor would load from `source` in that precision ("fp32", "fp16", "bf16"), on the CPU, with the adapter merged.

    Raises ModelError, AdapterError, ConfigError.
    """
    model = in_precision(
        load(source, device="cpu", config=config, variant=variant, allow_pickle=allow_pickle),
        DTYPES[dtype],
    )
    if adapter is not None:
        with Adapters(model).active(AdapterUse(Adapter.load(adapter), adapter_scale)):
            pass  # merged it stays, until another is wanted
    return model


def in_precision(model: Model, dtype: torch.dtype) -> Model:
    """The float32 model, its networks cast as loading casts them: the VAE stays float32 where the others are float16."""
    for network, precision in (
        (model.unet.network, dtype),
        (model.text_encoder, dtype),
        (model.vae, torch.float32 if dtype == torch.float16 else dtype),
    ):
        nn.Module.to(network, precision)
    networks = {"unet": model.unet.network, "vae": model.vae, "text_encoder": model.text_encoder}
    weights = Weights(networks, model.tokenizer)
    return dataclasses.replace(model, unet=UNet(model.unet.network), weights=weights)


def in_float32(model: Model) -> Model:
    """The same numbers in float32, on memory of their own: what exported parts are compared with."""
    unet, vae = (_widened(network) for network in (model.unet.network, model.vae))
    return dataclasses.replace(model, unet=UNet(unet), vae=vae, halves=None, weights=model.weights)


def _widened(network: nn.Module) -> nn.Module:
    if next(network.parameters()).dtype == torch.float32:
        return network
    with torch.device("meta"):
        fresh = type(network).from_config(network.config)  # type: ignore[attr-defined]
    wide = {name: tensor.float() for name, tensor in network.state_dict().items()}
    fresh.load_state_dict(wide, assign=True)
    return fresh.requires_grad_(False).eval()  # type: ignore[no-any-return]

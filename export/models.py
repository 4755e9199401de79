"""Models as they are exported: in any precision, with an adapter merged, on the CPU.

A precision that this machine cannot compute with can be exported all the same.
"""

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
    """Return the model that an editor would load, on the CPU, with the adapter merged.

    Args:
        source: a diffusers folder or a `.safetensors` checkpoint; None: the embedded model.
        dtype: "fp32", "fp16" or "bf16".
        config: for a checkpoint, a diffusers folder of the same architecture.
        variant: of the weights' files, as in diffusers ("fp16").
        allow_pickle: also read weights that can run code: only files you trust.
        adapter: the file of a LoRA to merge.
        adapter_scale: how much of it.

    Raises:
        ModelError: the model cannot be loaded.
        AdapterError: the adapter cannot be read, or was not made for this model.
        ConfigError: the scale is out of its range.
    """
    model = in_precision(
        load(source, device="cpu", config=config, variant=variant, allow_pickle=allow_pickle),
        DTYPES[dtype],
    )
    if adapter is not None:
        with Adapters(model).active(AdapterUse(Adapter.load(adapter), adapter_scale)):
            pass  # it stays merged until another one is wanted
    return model


def in_precision(model: Model, dtype: torch.dtype) -> Model:
    """Return the float32 model with its networks cast as loading casts them.

    The VAE stays float32 where the others are float16.
    """
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
    """Return the same numbers in float32: what exported parts are compared with.

    Weights of another precision are copied; the model is not changed.
    """
    return dataclasses.replace(
        model,
        unet=UNet(_widened(model.unet.network)),
        vae=_widened(model.vae),
        halves=None,
        weights=model.weights,
    )


def _widened(network: nn.Module) -> nn.Module:
    if next(network.parameters()).dtype == torch.float32:
        return network
    with torch.device("meta"):
        fresh = type(network).from_config(network.config)  # type: ignore[attr-defined]
    wide = {name: tensor.float() for name, tensor in network.state_dict().items()}
    fresh.load_state_dict(wide, assign=True)
    return fresh.requires_grad_(False).eval()  # type: ignore[no-any-return]

"""From a diffusers folder, a single-file checkpoint, a diffusers pipeline, or nothing at all (the embedded model) to a `Model`.

Weights are read from safetensors only, unless pickles are allowed by name, and nothing is fetched from anywhere.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers.utils.logging
import torch
import transformers.utils.logging

from ..config import DragConfig
from ..errors import ModelError
from ..model import Model, choose_device, choose_dtype, frozen_view
from ..unet import UNet
from .checkpoint import read_checkpoint
from .folder import NETWORKS, PARTS, read_folder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["EMBEDDED", "load", "of_pipeline"]

EMBEDDED = Path(__file__).parents[1] / "embedded"


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    config: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """A model from `source`: a diffusers folder, a `.safetensors` checkpoint, or None for the embedded model.

    device: "auto", "cpu", "cuda", "cuda:1". dtype: "float32", "bfloat16", or (CUDA only) "float16".
    config: for a checkpoint, a diffusers folder with the configuration and tokenizer of the same architecture; without it, what diffusers itself
        downloaded earlier is looked for. variant: as in diffusers ("fp16").
    allow_pickle: also read `.bin` and `.ckpt`, which can run code: only for files you trust.
    Raises ModelError (missing or broken files, an architecture that cannot be dragged) and DeviceError.
    """
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    path = EMBEDDED if source is None else Path(source)
    card = path / "drag.json"
    defaults = DragConfig.from_card(card) if card.is_file() else DragConfig()
    with _quiet():
        if path.is_dir():
            parts = read_folder(path, variant, allow_pickle)
        elif path.is_file():
            parts = read_checkpoint(path, config, allow_pickle)
        else:
            raise ModelError(
                f"no model at {str(path)!r}; give a diffusers folder or a .safetensors file (nothing is downloaded)"
            )
        beside = {"--model-config": config, "--variant": variant}
        told = [word for option, value in beside.items() if value is not None for word in (option, str(value))]
        model = _model(str(path), parts, where, precision, defaults)
        return replace(model, loaded_with=(*told, *(("--allow-pickle",) if allow_pickle else ())))


def of_pipeline(pipeline: "DiffusionPipeline") -> Model:
    """A model on a pipeline's own weights, in their memory, device and precision; the pipeline itself is not changed.

    Raises ModelError if it is not a Stable Diffusion pipeline, or if its weights are moved about as it runs; DeviceError for float16 on a CPU.
    """
    missing = [name for name in PARTS if getattr(pipeline, name, None) is None]
    if missing:
        raise ModelError(
            f"{type(pipeline).__name__} has no {', '.join(missing)}; give a Stable Diffusion 1.x or 2.x text-to-image pipeline"
        )
    parts: dict[str, Any] = {name: getattr(pipeline, name) for name in PARTS}
    for name in NETWORKS:
        if any(hasattr(module, mark) for module in parts[name].modules() for mark in ("_hf_hook", "_diffusers_hook")):
            raise ModelError(
                f"the pipeline's {name} is moved between devices as it runs; give a pipeline without offloading"
            )
        parts[name] = frozen_view(parts[name])
    devices = {weight.device for name in NETWORKS for weight in parts[name].parameters()}
    if len(devices) > 1:
        raise ModelError(f"the pipeline lies on {', '.join(sorted(map(str, devices)))}; put it on one device")
    where = devices.pop()
    choose_dtype(parts["unet"].dtype, where)
    return _model(type(pipeline).__name__, parts, where, None, DragConfig())


def _model(
    name: str, parts: Mapping[str, Any], device: torch.device, dtype: torch.dtype | None, defaults: DragConfig
) -> Model:
    """The networks frozen, in evaluation mode and, if `dtype` is given, moved to their device and precision."""
    for part in NETWORKS:
        network = parts[part].requires_grad_(False).eval()
        if dtype is not None:
            network.to(device, torch.float32 if part == "vae" and dtype == torch.float16 else dtype)
    unet, vae, text_encoder, tokenizer, scheduler = (parts[part] for part in PARTS)
    model = Model(name, UNet(unet), vae, text_encoder, tokenizer, dict(scheduler.config), device, defaults)
    if not hasattr(vae.config, "scaling_factor") or vae.config.get("latent_channels") != 4:
        raise ModelError(
            f"the VAE of {name!r} is not Stable Diffusion's (4 latent channels and a scaling factor); give a 1.x or 2.x model"
        )
    if text_encoder.config.hidden_size != unet.config["cross_attention_dim"]:
        seen = f"the text encoder of {name!r} has width {text_encoder.config.hidden_size}, its U-Net reads {unet.config['cross_attention_dim']}"
        raise ModelError(f"{seen}; give the two that belong together")
    model.schedule(model.defaults.steps)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice; what goes wrong is raised by us."""
    before = [
        (part, part.get_verbosity(), part.is_progress_bar_enabled())
        for part in (transformers.utils.logging, diffusers.utils.logging)
    ]
    for part, _, _ in before:
        part.set_verbosity(logging.CRITICAL)
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part, verbosity, bars in before:
            part.set_verbosity(verbosity)
            if bars:
                part.enable_progress_bar()

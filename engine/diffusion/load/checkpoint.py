"""Read a single-file checkpoint in the original layout: one file for all networks.

diffusers knows what its tensors are called; a diffusers folder of the same architecture says how
the networks are built, and has the tokenizer.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    fetch_diffusers_config,
    load_single_file_checkpoint,
)
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from ...errors import ModelError
from .folder import attempt, check_complete, check_folder, read_rest

__all__ = ["read_checkpoint"]


def read_checkpoint(
    path: Path, config: str | os.PathLike[str] | None, allow_pickle: bool
) -> dict[str, Any]:
    """Read a checkpoint's networks, and the rest from a folder; components by name.

    Args:
        path: The checkpoint.
        config: A diffusers folder of the same architecture; None for what diffusers downloaded.
        allow_pickle: Whether it may be a pickle.

    Raises:
        ModelError: For files that are missing, broken or do not belong together.
    """
    if path.suffix != ".safetensors" and not allow_pickle:
        raise ModelError(
            f"{str(path)!r} is not a .safetensors file; convert it, or allow pickles (which can "
            "run code) with allow_pickle=True"
        )
    tensors = attempt(path, lambda: load_single_file_checkpoint(str(path)))
    folder = _cached_configuration(path, tensors) if config is None else Path(config)
    if not folder.is_dir():
        raise ModelError(
            f"no configuration folder at {str(config)!r}; "
            "give a diffusers folder of the same architecture"
        )
    check_folder(folder)

    def network(name: str, kind: Any, convert: Callable[[Any, Any], dict[str, Tensor]]) -> Any:
        settings = kind.load_config(folder / name)
        with torch.device("meta"):
            empty = kind.from_config(settings)
        return _filled(path, empty.to_empty(device="cpu"), convert(tensors, settings))

    return {
        "unet": attempt(
            path, lambda: network("unet", UNet2DConditionModel, convert_ldm_unet_checkpoint)
        ),
        "vae": attempt(path, lambda: network("vae", AutoencoderKL, convert_ldm_vae_checkpoint)),
        "text_encoder": attempt(path, lambda: _text_encoder(path, folder, tensors)),
    } | read_rest(folder)


def _text_encoder(path: Path, folder: Path, tensors: Mapping[str, Tensor]) -> Any:
    """Return the text encoder with a checkpoint's weights: OpenAI's (1.x) or OpenCLIP's (2.x)."""
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder", local_files_only=True)
    empty = CLIPTextModel(config)
    if any(name.startswith("cond_stage_model.model.") for name in tensors):
        renamed = convert_open_clip_checkpoint(empty, tensors)
    else:
        renamed = convert_ldm_clip_checkpoint(tensors)
    outer = "text_model." if hasattr(empty, "text_model") else ""  # gone in transformers 5.6
    spelled = {outer + name.removeprefix("text_model."): tensor for name, tensor in renamed.items()}
    return _filled(path, empty, spelled)


def _cached_configuration(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Return where diffusers left the configuration of a checkpoint's family."""
    family = fetch_diffusers_config(tensors)["pretrained_model_name_or_path"]
    try:
        return Path(snapshot_download(family, local_files_only=True))
    except LocalEntryNotFoundError as absent:
        raise ModelError(
            f"{str(path)!r} holds weights alone (diffusers takes it for {family}, which the hub's "
            "cache has not); give config=FOLDER, a diffusers folder with the configuration and "
            "tokenizer of the same architecture"
        ) from absent


def _filled(source: Path, network: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Overwrite every one of a network's weights, and return it."""
    check_complete(source, network.load_state_dict(tensors, strict=False).missing_keys)
    return network

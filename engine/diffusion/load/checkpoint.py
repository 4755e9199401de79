"""Read a single-file checkpoint in the original layout: one file for all networks.

diffusers knows what its tensors are called; a diffusers folder of the same architecture says how
the networks are built, and has the tokenizer.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    fetch_diffusers_config,
)
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor

from ...errors import ModelError
from ...system.incoming import told_as
from .folder import check_folder, read_rest
from .network import build_empty, check_together, fill, fitting, read_configuration
from .stored import SAFE, Stored, StoredTensor, open_weights

__all__ = ["read_checkpoint"]

_TRAINERS = "model_ema."
"""Weights that a trainer kept beside those that it published."""


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
    if path.suffix.lower() != SAFE and not allow_pickle:
        raise ModelError(
            f"{str(path)!r} is not a .safetensors file; convert it, or allow pickles (which can "
            "run code) with allow_pickle=True (--allow-pickle)"
        )
    with open_weights([path]) as stored:
        with told_as(ModelError, f"{config!r} is no path of a configuration"):
            folder = _cached_configuration(path, stored) if config is None else Path(config)
            there = folder.is_dir()
        if not there:
            raise ModelError(
                f"no configuration folder at {str(config)!r}; "
                "give a diffusers folder of the same architecture"
            )
        check_folder(folder)
        networks = build_empty(folder, read_configuration(folder))
        check_together(str(path), networks)
        rest = read_rest(folder, networks["text_encoder"])
        tensors = {
            name: tensor.read() for name, tensor in stored.items() if not name.startswith(_TRAINERS)
        }
    with told_as(ModelError, f"{str(path)!r} could not be loaded"):
        spelled = {
            "unet": convert_ldm_unet_checkpoint(tensors, networks["unet"].config),
            "vae": convert_ldm_vae_checkpoint(tensors, networks["vae"].config),
            "text_encoder": _text_encoder(tensors, networks["text_encoder"]),
        }
    for name, network in networks.items():
        fill(path, network, fitting(path, name, network, _in_memory(spelled[name])))
    return networks | rest


def _text_encoder(tensors: Mapping[str, Tensor], network: Any) -> Mapping[str, Any]:
    """Return the text encoder's weights: OpenAI's (1.x) or OpenCLIP's (2.x)."""
    if any(name.startswith("cond_stage_model.model.") for name in tensors):
        return dict(convert_open_clip_checkpoint(network, tensors))
    return dict(convert_ldm_clip_checkpoint(tensors))


def _in_memory(tensors: Mapping[str, Any]) -> Stored:
    """Return tensors as if they were stored one by one: none is a view of another."""
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, partial(Tensor.contiguous, tensor))
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }


def _cached_configuration(path: Path, stored: Stored) -> Path:
    """Return where diffusers left the configuration of a checkpoint's family."""
    with told_as(ModelError, f"{str(path)!r} could not be loaded"):
        family = fetch_diffusers_config(stored)["pretrained_model_name_or_path"]
    try:
        return Path(snapshot_download(family, local_files_only=True))
    except LocalEntryNotFoundError as absent:
        raise ModelError(
            f"{str(path)!r} holds weights alone (diffusers takes it for {family}, which the hub's "
            "cache has not); give config=FOLDER (--model-config), a diffusers folder with the "
            "configuration and tokenizer of the same architecture"
        ) from absent

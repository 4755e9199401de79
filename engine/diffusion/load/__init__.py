"""Load a `Model` from a diffusers folder, a single-file checkpoint, a pipeline, or our own weights.

Weights are read from safetensors only, unless pickles are allowed by name, and nothing is fetched
from anywhere.
"""

import os
from pathlib import Path

import torch

from ...config import DragConfig, shown
from ...errors import ConfigError, ModelError
from ...system.device import choose_device, choose_dtype
from ...system.incoming import read_json, told_as
from ...system.numerics import own_numerics
from ..model import LoadedFrom, Model
from .build import build_model
from .checkpoint import read_checkpoint
from .folder import read_folder
from .pipeline import of_pipeline

__all__ = ["CARD", "EMBEDDED", "defaults_of", "load", "of_pipeline"]

EMBEDDED = Path(__file__).parents[1] / "embedded"
"""Folder of the model that comes with the package."""

CARD = "drag.json"
"""The file with the drag settings that suit a folder's model."""


@own_numerics()
def load(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    config: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """Load a model.

    Args:
        source: A diffusers folder, a `.safetensors` checkpoint, or None for the embedded model.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float16 on CUDA, float32 on a CPU), "float32", "bfloat16", or (CUDA only)
            "float16".
        config: For a checkpoint, a diffusers folder with the configuration and tokenizer of the
            same architecture; None for what diffusers itself downloaded earlier.
        variant: Of the weights' files, as in diffusers ("fp16").
        allow_pickle: Also read `.bin` and `.ckpt`, which can run code: only for files you trust.

    Raises:
        ModelError: For missing or broken files, or an architecture that cannot be dragged.
        DeviceError: For a device or precision that is not here.
    """
    if variant is not None and not isinstance(variant, str):
        raise ModelError(f"variant must be a text as in diffusers, got {shown(variant)}")
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    with told_as(ModelError, f"{source!r} is no path of a model"):
        path = EMBEDDED if source is None else Path(source)
        is_folder, is_file = path.is_dir(), path.is_file()
        defaults = defaults_of(path)
    if is_folder:
        components = read_folder(path, variant, allow_pickle)
    elif is_file:
        components = read_checkpoint(path, config, allow_pickle)
    else:
        raise ModelError(
            f"no model at {str(path)!r}; give a diffusers folder or a .safetensors file "
            "(nothing is downloaded)"
        )
    folder = None if config is None else str(config)
    loaded_from = LoadedFrom(path, folder, variant, allow_pickle)
    return build_model(str(path), components, where, precision, defaults, loaded_from)


def defaults_of(folder: Path) -> DragConfig:
    """Return the drag settings that a folder brings (`CARD`), else ours. Raises ConfigError."""
    card = folder / CARD
    if not card.exists():
        return DragConfig()
    said = read_json(card, ConfigError)
    if not isinstance(said, dict):
        raise ConfigError(f"{str(card)!r} must hold a JSON object of settings")
    with told_as(ConfigError, f"{str(card)!r} holds no settings"):
        return DragConfig().replace(**said)

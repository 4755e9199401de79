"""From a diffusers folder, a single-file checkpoint, a diffusers pipeline, or nothing at all (the embedded model) to a `Model`.

Weights are read from safetensors only, unless pickles are allowed by name, and nothing is fetched from anywhere.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import diffusers.utils.logging
import torch
import transformers.utils.logging

from ...config import DragConfig
from ...errors import ModelError
from ...system.device import choose_device, choose_dtype
from ..model import Model
from .build import build_model
from .checkpoint import read_checkpoint
from .folder import read_folder
from .pipeline import of_pipeline

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
        told = [
            word
            for option, value in beside.items()
            if value is not None
            for word in (option, str(value))
        ]
        model = build_model(str(path), parts, where, precision, defaults)
        return replace(model, loaded_with=(*told, *(("--allow-pickle",) if allow_pickle else ())))


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

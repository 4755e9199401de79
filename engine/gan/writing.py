"""Write a generator's folder. Nothing here needs more than PyTorch and safetensors."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .generator import Generator

__all__ = ["CLASS", "CONFIG", "WEIGHTS", "write_folder"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CLASS = "StyleGAN2Generator"
"""What `config.json` says the folder holds."""


def write_folder(folder: Path, generator: Generator, dtype: torch.dtype = torch.float32) -> None:
    """Write a generator into a folder that exists; each file appears whole."""
    tensors = {
        name: value.detach().to(dtype).cpu().contiguous()
        for name, value in generator.state_dict().items()
    }
    part = folder / (WEIGHTS + ".part")
    save_file(tensors, part)
    part.replace(folder / WEIGHTS)
    config = {"_class_name": CLASS, **generator.architecture.to_dict()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

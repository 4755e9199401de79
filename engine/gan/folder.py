"""Read and write a generator's folder: `config.json`, `model.safetensors`, perhaps `drag.json`."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..config import DragGANConfig
from ..diffusion.load.network import fill, fitting
from ..diffusion.load.stored import open_weights
from ..errors import ConfigError, ModelError
from ..system.incoming import first_line, read_json, told_as
from ..system.numerics import float32_default, own_numerics
from .architecture import Architecture
from .generator import Generator
from .model import GeneratorModel

__all__ = ["CONFIG", "EMBEDDED", "WEIGHTS", "load_generator", "write_folder"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "drag.json"
CLASS = "StyleGAN2Generator"
"""What `config.json` says the folder holds."""

EMBEDDED = Path(__file__).parent / "embedded"
"""Folder of the generator that comes with the package."""


@own_numerics()
@float32_default()
def load_generator(
    source: str | os.PathLike[str] | None = None, device: torch.device | None = None
) -> GeneratorModel:
    """Load a generator.

    Args:
        source: A folder, or None for the embedded generator.
        device: Where to; None: the CPU.

    Raises:
        ModelError: For missing or broken files.
        ConfigError: For a `drag.json` that holds no settings.
    """
    with told_as(ModelError, f"{source!r} is no path of a generator"):
        folder = EMBEDDED if source is None else Path(source)
        is_folder, has_card = folder.is_dir(), (folder / CARD).is_file()
    if not is_folder:
        raise ModelError(
            f"there is no folder {str(folder)!r}; give one with {CONFIG} and {WEIGHTS}, as "
            "`dragnoise convert-generator` writes it"
        )
    architecture = read_architecture(folder / CONFIG)
    path = folder / WEIGHTS
    with torch.device("meta"):
        network = Generator(architecture)
    with open_weights([path]) as stored:
        fill(path, network, fitting(path, "generator", network, stored))
    network.to(device or torch.device("cpu"), torch.float32).eval().requires_grad_(False)
    defaults = DragGANConfig.from_card(folder / CARD) if has_card else DragGANConfig()
    where = device or torch.device("cpu")
    return GeneratorModel(str(folder), network, where, defaults)


def read_architecture(path: Path) -> Architecture:
    """Read what a generator's weights must fit.

    Raises:
        ModelError: Where the file is none, or of another kind of model.
    """
    said: Any = read_json(path, ModelError, 2**20)
    if not isinstance(said, dict) or said.pop("_class_name", None) != CLASS:
        raise ModelError(f"{str(path)!r} is not of a {CLASS}; give a generator's folder")
    try:
        return Architecture.from_dict(said)
    except ConfigError as wrong:
        raise ModelError(f"{str(path)!r} cannot be used ({first_line(wrong)})") from wrong


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

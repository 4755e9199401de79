"""Read a generator's folder: `config.json`, `model.safetensors`, perhaps `drag.json`."""

import os
from pathlib import Path
from typing import Any

import torch

from ..config import DragGANConfig
from ..diffusion.load.network import fill, fitting
from ..diffusion.load.stored import open_weights
from ..errors import ConfigError, ModelError
from ..system.incoming import first_line, read_json, told_as
from ..system.numerics import own_numerics
from .architecture import Architecture
from .generator import Generator
from .model import GeneratorModel
from .writing import CLASS, CONFIG, WEIGHTS

__all__ = ["EMBEDDED", "load_generator", "read_architecture"]

CARD = "drag.json"

EMBEDDED = Path(__file__).parent / "embedded"
"""Folder of the generator that comes with the package."""


@own_numerics()
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
    defaults = DragGANConfig.from_card(folder / CARD) if has_card else _usual(architecture)
    where = device or torch.device("cpu")
    return GeneratorModel(str(folder), network, where, defaults)


def _usual(architecture: Architecture) -> DragGANConfig:
    """Return the published settings, as far as a generator is large enough for them."""
    published = DragGANConfig()
    return published.replace(
        rows=min(published.rows, architecture.rows),
        block=min(published.block, len(architecture.channels)),
    )


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

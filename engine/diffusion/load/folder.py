"""Read a diffusers folder, with nothing missing and nothing from outside."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...errors import ModelError
from .files import Weighed, names_in, weights_of
from .network import NETWORKS, build_empty, check_together, fill, fitting, read_configuration
from .scheduler import read_scheduler
from .stored import open_weights
from .tokenizer import belonging, read_tokenizer

__all__ = ["COMPONENTS", "NETWORKS", "check_folder", "read_folder", "read_rest"]

COMPONENTS = (*NETWORKS, "tokenizer", "scheduler")
"""All that a model is made of."""


def read_folder(path: Path, variant: str | None, allow_pickle: bool) -> dict[str, Any]:
    """Read the components of a folder, by name.

    Everything is checked before a weight is read: what may be wrong with it is known at once.

    Args:
        path: The folder.
        variant: Of the weights' files; None for the usual ones, or the only ones there are.
        allow_pickle: Whether weights may be read from a pickle.

    Raises:
        ModelError: For a folder that is no model's, not whole, or cannot be dragged.
    """
    check_folder(path)
    settings = read_configuration(path)
    files = _weights(path, variant, allow_pickle)
    networks = build_empty(path, settings)
    with ExitStack() as open_files:
        weights = {}
        for name, network in networks.items():
            stored = open_files.enter_context(open_weights(files[name].files))
            weights[name] = fitting(path / name, name, network, stored)
        check_together(str(path), networks)
        rest = read_rest(path, networks["text_encoder"])
        for name, network in networks.items():
            fill(path / name, network, weights[name])
    return networks | rest


def _weights(path: Path, variant: str | None, allow_pickle: bool) -> Mapping[str, Weighed]:
    """Return the files of all networks; at least one network must have the variant asked for."""
    files = {name: weights_of(path / name, variant, allow_pickle) for name in NETWORKS}
    if variant and variant not in {found.variant for found in files.values()}:
        raise ModelError(
            f"no network in {str(path)!r} has weights of the variant {variant!r}, as in "
            f"unet/diffusion_pytorch_model.{variant}.safetensors; leave the variant out"
        )
    return files


def check_folder(path: Path) -> None:
    """Refuse a folder that is not a model's.

    Raises:
        ModelError: With what it lacks.
    """
    there = names_in(path)
    missing = [name for name in COMPONENTS if name not in there or not (path / name).is_dir()]
    if missing:
        raise ModelError(
            f"{str(path)!r} has no folder {', '.join(missing)}; "
            f"a diffusers folder has {', '.join(COMPONENTS)}"
        )


def read_rest(path: Path, text_encoder: Any) -> dict[str, Any]:
    """Read the components of a folder that have no weights: tokenizer and scheduler."""
    tokenizer = read_tokenizer(path / "tokenizer")
    return {
        "tokenizer": belonging(tokenizer, text_encoder, str(path)),
        "scheduler": read_scheduler(path / "scheduler"),
    }

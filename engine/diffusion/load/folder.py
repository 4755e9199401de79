"""Read a diffusers folder with nothing missing: the libraries would fill gaps with noise."""

import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import is_accelerate_available
from transformers import CLIPTextModel, CLIPTokenizer

from ...errors import ModelError
from ..unet import objections_to

__all__ = [
    "COMPONENTS",
    "NETWORKS",
    "attempt",
    "check_complete",
    "check_folder",
    "read_folder",
    "read_rest",
]

NETWORKS = ("unet", "vae", "text_encoder")
"""Components with weights; the names of their folders."""

COMPONENTS = (*NETWORKS, "tokenizer", "scheduler")
"""All that a model is made of."""

_FAILURES = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    safetensors.SafetensorError,
)
T = TypeVar("T")


def read_folder(path: Path, variant: str | None, allow_pickle: bool) -> dict[str, Any]:
    """Read the components of a folder, by name.

    Raises:
        ModelError: For a folder that is no model's, not whole, or cannot be dragged.
    """
    check_folder(path)
    lazy = {"low_cpu_mem_usage": is_accelerate_available()}
    strict = {"ignore_mismatched_sizes": True}  # and refused by us, with all their names
    text = path / "text_encoder"
    return {
        "unet": _network(UNet2DConditionModel, path / "unet", variant, allow_pickle, lazy),
        "vae": _network(AutoencoderKL, path / "vae", variant, allow_pickle, lazy),
        "text_encoder": _network(CLIPTextModel, text, variant, allow_pickle, strict),
    } | read_rest(path)


def check_folder(path: Path) -> None:
    """Refuse a folder that is not a model's, or whose U-Net cannot be cut, before reading weights.

    Raises:
        ModelError: With the reasons.
    """
    missing = [name for name in COMPONENTS if not (path / name).is_dir()]
    if missing:
        raise ModelError(
            f"{str(path)!r} has no folder {', '.join(missing)}; "
            f"a diffusers folder has {', '.join(COMPONENTS)}"
        )
    for file in sorted(file for name in COMPONENTS for file in (path / name).glob("*.json")):
        _check_json(file)
    unet = path / "unet"
    reasons = objections_to(attempt(unet, lambda: dict(UNet2DConditionModel.load_config(unet))))
    if reasons:
        raise ModelError(
            f"the U-Net in {str(path)!r} cannot be dragged: {'; '.join(reasons)}. "
            "Use a Stable Diffusion 1.x or 2.x model"
        )


def _check_json(file: Path) -> None:
    """Refuse what is no JSON object: the libraries fail on it with anything, even a bare Exception.

    Raises:
        ModelError: With the file's name.
    """
    if not isinstance(attempt(file, lambda: json.loads(file.read_bytes())), dict):
        raise ModelError(f"{str(file)!r} holds no JSON object; is the folder whole?")


def read_rest(path: Path) -> dict[str, Any]:
    """Read the components of a folder that have no weights: tokenizer and scheduler."""
    tokenizer = path / "tokenizer"
    scheduler = path / "scheduler"
    return {
        "tokenizer": attempt(
            tokenizer, lambda: CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
        ),
        "scheduler": attempt(
            scheduler, lambda: DDIMScheduler.from_pretrained(scheduler, local_files_only=True)
        ),
    }


def _network(
    kind: Any, folder: Path, variant: str | None, allow_pickle: bool, settings: dict[str, Any]
) -> Any:
    """Read a network and every one of its weights.

    Args:
        kind: Its class.
        folder: With its configuration and weights.
        variant: Of the weights' files; None for the usual ones, or the only ones there are.
        allow_pickle: Whether weights may be read from a pickle.
        settings: More arguments of `from_pretrained`.
    """
    safe = sorted(file.name for file in folder.glob("*.safetensors"))
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    if not safe and not pickles:
        raise ModelError(f"{str(folder)!r} has no weights; fetch the folder again, whole")
    if not safe and not allow_pickle:
        raise ModelError(
            f"{str(folder)!r} has its weights in a pickle, {pickles[0]}; convert it to "
            ".safetensors, or allow pickles (which can run code) with allow_pickle=True"
        )
    if variant is None and safe and all(".fp16." in name for name in safe):
        variant = "fp16"
    options = settings | {
        "use_safetensors": bool(safe),
        "variant": variant,
        "local_files_only": True,
        "output_loading_info": True,
    }
    network, report = attempt(folder, lambda: kind.from_pretrained(folder, **options))
    check_complete(folder, report["missing_keys"])
    mismatched = (name for name, *_ in report.get("mismatched_keys", ()))
    check_complete(folder, mismatched, "have another shape for")
    return network


def check_complete(source: Path, missing: Iterable[str], verb: str = "lack") -> None:
    """Refuse weights that lack some of a network's.

    Raises:
        ModelError: With the first few names.
    """
    absent = sorted(name for name in missing if not name.endswith("position_ids"))
    if not absent:
        return
    names = ", ".join(absent[:3])
    if len(absent) > 3:
        names += f" and {len(absent) - 3} more"
    raise ModelError(
        f"the weights in {str(source)!r} {verb} {names}; they do not belong to the configuration"
    )


def attempt(where: Path, read: Callable[[], T]) -> T:
    """Call `read`, and raise what the libraries raise as a ModelError about `where`."""
    try:
        return read()
    except _FAILURES as failed:
        raise ModelError(
            f"{str(where)!r} could not be loaded ({_first_line(failed)}); is the folder whole?"
        ) from failed


def _first_line(error: BaseException) -> str:
    """Return an error's first line; two of them where the first ends in a colon, as PyTorch's."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]

"""A diffusers folder, part by part, with nothing missing: the libraries themselves would fill missing weights with noise."""

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
    "check_folder",
    "complete",
    "read_folder",
    "read_rest",
]

NETWORKS = ("unet", "vae", "text_encoder")
COMPONENTS = (*NETWORKS, "tokenizer", "scheduler")
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
    check_folder(path)
    lazily = {"low_cpu_mem_usage": is_accelerate_available()}
    return {
        "unet": _weights(UNet2DConditionModel, path / "unet", variant, allow_pickle, **lazily),
        "vae": _weights(AutoencoderKL, path / "vae", variant, allow_pickle, **lazily),
        "text_encoder": _weights(
            CLIPTextModel,
            path / "text_encoder",
            variant,
            allow_pickle,
            ignore_mismatched_sizes=True,
        ),
    } | read_rest(path)


def check_folder(path: Path) -> None:
    """Refuse, before any weights are read, a folder that is not a model's or whose U-Net cannot be cut."""
    missing = [name for name in COMPONENTS if not (path / name).is_dir()]
    if missing:
        raise ModelError(
            f"{str(path)!r} has no folder {', '.join(missing)}; a diffusers folder has {', '.join(COMPONENTS)}"
        )
    for file in sorted(file for name in COMPONENTS for file in (path / name).glob("*.json")):
        _json_object(file)
    reasons = objections_to(
        attempt(path / "unet", lambda: dict(UNet2DConditionModel.load_config(path / "unet")))
    )
    if reasons:
        raise ModelError(
            f"the U-Net in {str(path)!r} cannot be dragged: {'; '.join(reasons)}. Use a Stable Diffusion 1.x or 2.x model"
        )


def _json_object(file: Path) -> None:
    """Refuse what is not JSON here, because the libraries fail on it with anything from a warning to a bare Exception."""
    if not isinstance(attempt(file, lambda: json.loads(file.read_bytes())), dict):
        raise ModelError(f"{str(file)!r} holds no JSON object; is the folder whole?")


def read_rest(path: Path) -> dict[str, Any]:
    return {
        "tokenizer": attempt(
            path / "tokenizer",
            lambda: CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True),
        ),
        "scheduler": attempt(
            path / "scheduler",
            lambda: DDIMScheduler.from_pretrained(path / "scheduler", local_files_only=True),
        ),
    }


def _weights(kind: Any, folder: Path, variant: str | None, allow_pickle: bool, **how: Any) -> Any:
    """A network with every one of its weights read from `folder`; diffusers itself would fill missing ones with noise."""
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    others = sorted(file.name for file in folder.glob("*.bin"))
    if not found and not others:
        raise ModelError(f"{str(folder)!r} has no weights; fetch the folder again, whole")
    if not found and not allow_pickle:
        how_to = "convert it to .safetensors, or allow pickles (which can run code) with allow_pickle=True"
        raise ModelError(f"{str(folder)!r} has its weights in a pickle, {others[0]}; {how_to}")
    if variant is None and found and all(".fp16." in name for name in found):
        variant = "fp16"
    how |= {
        "use_safetensors": bool(found),
        "variant": variant,
        "local_files_only": True,
        "output_loading_info": True,
    }
    network, report = attempt(folder, lambda: kind.from_pretrained(folder, **how))
    complete(folder, report["missing_keys"])
    complete(
        folder, (name for name, *_ in report.get("mismatched_keys", ())), "have another shape for"
    )
    return network


def complete(source: Path, missing: Iterable[str], how: str = "lack") -> None:
    absent = sorted(name for name in missing if not name.endswith("position_ids"))
    if absent:
        named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise ModelError(
            f"the weights in {str(source)!r} {how} {named}; they do not belong to the configuration"
        )


def attempt(where: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except _FAILURES as failed:
        raise ModelError(
            f"{str(where)!r} could not be loaded ({_first_line(failed)}); is the folder whole?"
        ) from failed


def _first_line(error: BaseException) -> str:
    """What an error says, up to the end of its first line; PyTorch says what it is about in the second, after a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]

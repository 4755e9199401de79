"""From a diffusers folder, a single-file checkpoint, a diffusers pipeline, or nothing at all (the embedded model) to a `Model`.

Weights are read from safetensors only, unless pickles are allowed by name, and nothing is fetched from anywhere.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import diffusers.utils.logging
import safetensors
import torch
import transformers.utils.logging
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import is_accelerate_available
from transformers import CLIPTextModel, CLIPTokenizer

from .config import DragConfig
from .errors import ModelError
from .model import Model, choose_device, choose_dtype, frozen_view
from .unet import UNet, objections

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["EMBEDDED", "load", "of_pipeline"]

EMBEDDED = Path(__file__).parent / "embedded"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, safetensors.SafetensorError)
T = TypeVar("T")


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
    config: for a checkpoint, a diffusers folder with the configuration and tokenizer of the same architecture; without it diffusers looks in its
        own cache of the hub. variant: as in diffusers ("fp16"). allow_pickle: also read `.bin` and `.ckpt`, which can run code: only for files you trust.
    Raises ModelError (missing or broken files, an architecture that cannot be dragged) and DeviceError.
    """
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    path = EMBEDDED if source is None else Path(source)
    card = path / "drag.json"
    defaults = DragConfig.from_card(card) if card.is_file() else DragConfig()
    with _quiet():
        if path.is_dir():
            parts = _folder(path, variant, allow_pickle)
        elif path.is_file():
            parts = _checkpoint(path, config, allow_pickle)
        else:
            raise ModelError(f"no model at {str(path)!r}; give a diffusers folder or a .safetensors file (nothing is downloaded)")
        return _model(str(path), parts, where, precision, defaults)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars and advice; what goes wrong is raised by us."""
    before = [(part, part.get_verbosity(), part.is_progress_bar_enabled()) for part in (transformers.utils.logging, diffusers.utils.logging)]
    for part, _, _ in before:
        part.set_verbosity_error()
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part, verbosity, bars in before:
            part.set_verbosity(verbosity)
            if bars:
                part.enable_progress_bar()


def of_pipeline(pipeline: "DiffusionPipeline") -> Model:
    """A model on a pipeline's own weights, in their memory, device and precision; the pipeline itself is not changed.

    Raises ModelError if it is not a Stable Diffusion pipeline, or if accelerate moves its weights about.
    """
    missing = [name for name in _PARTS if getattr(pipeline, name, None) is None]
    if missing:
        raise ModelError(f"{type(pipeline).__name__} has no {', '.join(missing)}; give a Stable Diffusion 1.x or 2.x text-to-image pipeline")
    parts: dict[str, Any] = {name: getattr(pipeline, name) for name in _PARTS}
    for name in ("unet", "vae", "text_encoder"):
        if hasattr(parts[name], "_hf_hook"):
            raise ModelError(f"accelerate moves the pipeline's {name} between devices; give a pipeline without cpu offload")
        parts[name] = frozen_view(parts[name])
    where = next(parts["unet"].parameters()).device
    return _model(type(pipeline).__name__, parts, where, None, DragConfig())


def _model(name: str, parts: Mapping[str, Any], device: torch.device, dtype: torch.dtype | None, defaults: DragConfig) -> Model:
    """The networks frozen, in evaluation mode and, if `dtype` is given, moved to their device and precision."""
    for part in ("unet", "vae", "text_encoder"):
        network = parts[part].requires_grad_(False).eval()
        if dtype is not None:
            network.to(device, torch.float32 if part == "vae" and dtype == torch.float16 else dtype)
    if not hasattr(parts["vae"].config, "scaling_factor") or parts["vae"].config.get("latent_channels") != 4:
        raise ModelError("the VAE is not Stable Diffusion's (4 latent channels and a scaling factor); give a 1.x or 2.x model")
    model = Model(
        name, UNet(parts["unet"]), parts["vae"], parts["text_encoder"], parts["tokenizer"], dict(parts["scheduler"].config), device, defaults
    )
    model.schedule(model.defaults.steps)
    return model


def _folder(path: Path, variant: str | None, allow_pickle: bool) -> dict[str, Any]:
    missing = [name for name in _PARTS if not (path / name).is_dir()]
    if missing:
        raise ModelError(f"{str(path)!r} has no folder {', '.join(missing)}; a diffusers folder has {', '.join(_PARTS)}")
    reasons = objections(_attempt(path / "unet", lambda: dict(UNet2DConditionModel.load_config(path / "unet"))))
    if reasons:
        raise ModelError(f"the U-Net in {str(path)!r} cannot be dragged: {'; '.join(reasons)}. Use a Stable Diffusion 1.x or 2.x model")
    lazily = {"low_cpu_mem_usage": is_accelerate_available()}
    return {
        "unet": _weights(UNet2DConditionModel, path / "unet", variant, allow_pickle, **lazily),
        "vae": _weights(AutoencoderKL, path / "vae", variant, allow_pickle, **lazily),
        "text_encoder": _weights(CLIPTextModel, path / "text_encoder", variant, allow_pickle),
        "tokenizer": _attempt(path / "tokenizer", lambda: CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)),
        "scheduler": _attempt(path / "scheduler", lambda: DDIMScheduler.from_pretrained(path / "scheduler", local_files_only=True)),
    }


def _weights(kind: Any, folder: Path, variant: str | None, allow_pickle: bool, **how: Any) -> Any:
    """A network with every one of its weights read from `folder`; diffusers itself would fill missing ones with noise."""
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    if not found and not allow_pickle:
        raise ModelError(f"{str(folder)!r} has no .safetensors weights; convert them, or allow pickles (which can run code) with allow_pickle=True")
    if variant is None and found and all(".fp16." in name for name in found):
        variant = "fp16"
    how |= {"use_safetensors": bool(found), "variant": variant, "local_files_only": True, "output_loading_info": True}
    network, report = _attempt(folder, lambda: kind.from_pretrained(folder, **how))
    absent = [name for name in report["missing_keys"] if not name.endswith("position_ids")]
    if absent or report.get("mismatched_keys"):
        raise ModelError(f"the weights in {str(folder)!r} lack {len(absent)} tensors, {', '.join(absent[:3])}; the file does not belong to the config")
    return network


def _checkpoint(path: Path, config: str | os.PathLike[str] | None, allow_pickle: bool) -> dict[str, Any]:
    if path.suffix != ".safetensors" and not allow_pickle:
        raise ModelError(f"{str(path)!r} is not a .safetensors file; convert it, or allow pickles (which can run code) with allow_pickle=True")
    if config is not None and not Path(config).is_dir():
        raise ModelError(f"no configuration folder at {str(config)!r}; give a diffusers folder of the same architecture")
    from diffusers import StableDiffusionPipeline  # slow to import, and wanted here alone

    try:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path), config=None if config is None else str(config), safety_checker=None, local_files_only=True, low_cpu_mem_usage=is_accelerate_available()
        )
    except _FAILURES as failed:
        hint = "give config=FOLDER, a diffusers folder with its configuration and tokenizer" if config is None else "is it a Stable Diffusion 1.x or 2.x checkpoint?"
        raise ModelError(f"{str(path)!r} could not be loaded ({_first_line(failed)}); {hint}") from failed
    return {name: getattr(pipeline, name) for name in _PARTS}


def _attempt(where: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except _FAILURES as failed:
        raise ModelError(f"{str(where)!r} could not be loaded ({_first_line(failed)}); is the folder whole?") from failed


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

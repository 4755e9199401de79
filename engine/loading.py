"""From a diffusers folder, a single-file checkpoint, a diffusers pipeline, or nothing at all (the embedded model) to a `Model`.

Weights are read from safetensors only, unless pickles are allowed by name, and nothing is fetched from anywhere.
"""

import json
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import diffusers.utils.logging
import safetensors
import torch
import transformers.utils.logging
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    fetch_diffusers_config,
    load_single_file_checkpoint,
)
from diffusers.utils import is_accelerate_available
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .config import DragConfig
from .errors import ModelError
from .model import Model, choose_device, choose_dtype, frozen_view
from .unet import UNet, objections

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["EMBEDDED", "load", "of_pipeline"]

EMBEDDED = Path(__file__).parent / "embedded"
_NETWORKS = ("unet", "vae", "text_encoder")
_PARTS = (*_NETWORKS, "tokenizer", "scheduler")
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
            parts = _folder(path, variant, allow_pickle)
        elif path.is_file():
            parts = _checkpoint(path, config, allow_pickle)
        else:
            raise ModelError(
                f"no model at {str(path)!r}; give a diffusers folder or a .safetensors file (nothing is downloaded)"
            )
        return _model(str(path), parts, where, precision, defaults)


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


def of_pipeline(pipeline: "DiffusionPipeline") -> Model:
    """A model on a pipeline's own weights, in their memory, device and precision; the pipeline itself is not changed.

    Raises ModelError if it is not a Stable Diffusion pipeline, or if its weights are moved about as it runs; DeviceError for float16 on a CPU.
    """
    missing = [name for name in _PARTS if getattr(pipeline, name, None) is None]
    if missing:
        raise ModelError(
            f"{type(pipeline).__name__} has no {', '.join(missing)}; give a Stable Diffusion 1.x or 2.x text-to-image pipeline"
        )
    parts: dict[str, Any] = {name: getattr(pipeline, name) for name in _PARTS}
    for name in _NETWORKS:
        if any(hasattr(module, mark) for module in parts[name].modules() for mark in ("_hf_hook", "_diffusers_hook")):
            raise ModelError(
                f"the pipeline's {name} is moved between devices as it runs; give a pipeline without offloading"
            )
        parts[name] = frozen_view(parts[name])
    devices = {weight.device for name in _NETWORKS for weight in parts[name].parameters()}
    if len(devices) > 1:
        raise ModelError(f"the pipeline lies on {', '.join(sorted(map(str, devices)))}; put it on one device")
    where = devices.pop()
    choose_dtype(parts["unet"].dtype, where)
    return _model(type(pipeline).__name__, parts, where, None, DragConfig())


def _model(
    name: str, parts: Mapping[str, Any], device: torch.device, dtype: torch.dtype | None, defaults: DragConfig
) -> Model:
    """The networks frozen, in evaluation mode and, if `dtype` is given, moved to their device and precision."""
    for part in _NETWORKS:
        network = parts[part].requires_grad_(False).eval()
        if dtype is not None:
            network.to(device, torch.float32 if part == "vae" and dtype == torch.float16 else dtype)
    unet, vae, text_encoder, tokenizer, scheduler = (parts[part] for part in _PARTS)
    model = Model(name, UNet(unet), vae, text_encoder, tokenizer, dict(scheduler.config), device, defaults)
    if not hasattr(vae.config, "scaling_factor") or vae.config.get("latent_channels") != 4:
        raise ModelError(
            f"the VAE of {name!r} is not Stable Diffusion's (4 latent channels and a scaling factor); give a 1.x or 2.x model"
        )
    if text_encoder.config.hidden_size != unet.config["cross_attention_dim"]:
        seen = f"the text encoder of {name!r} has width {text_encoder.config.hidden_size}, its U-Net reads {unet.config['cross_attention_dim']}"
        raise ModelError(f"{seen}; give the two that belong together")
    model.schedule(model.defaults.steps)
    return model


def _folder(path: Path, variant: str | None, allow_pickle: bool) -> dict[str, Any]:
    _check(path)
    lazily = {"low_cpu_mem_usage": is_accelerate_available()}
    return {
        "unet": _weights(UNet2DConditionModel, path / "unet", variant, allow_pickle, **lazily),
        "vae": _weights(AutoencoderKL, path / "vae", variant, allow_pickle, **lazily),
        "text_encoder": _weights(
            CLIPTextModel, path / "text_encoder", variant, allow_pickle, ignore_mismatched_sizes=True
        ),
    } | _without_weights(path)


def _check(path: Path) -> None:
    """Refuse, before any weights are read, a folder that is not a model's or whose U-Net cannot be cut."""
    missing = [name for name in _PARTS if not (path / name).is_dir()]
    if missing:
        raise ModelError(
            f"{str(path)!r} has no folder {', '.join(missing)}; a diffusers folder has {', '.join(_PARTS)}"
        )
    for file in sorted(file for name in _PARTS for file in (path / name).glob("*.json")):
        _json_object(file)
    reasons = objections(_attempt(path / "unet", lambda: dict(UNet2DConditionModel.load_config(path / "unet"))))
    if reasons:
        raise ModelError(
            f"the U-Net in {str(path)!r} cannot be dragged: {'; '.join(reasons)}. Use a Stable Diffusion 1.x or 2.x model"
        )


def _json_object(file: Path) -> None:
    """Refuse what is not JSON here, because the libraries fail on it with anything from a warning to a bare Exception."""
    if not isinstance(_attempt(file, lambda: json.loads(file.read_bytes())), dict):
        raise ModelError(f"{str(file)!r} holds no JSON object; is the folder whole?")


def _without_weights(path: Path) -> dict[str, Any]:
    return {
        "tokenizer": _attempt(
            path / "tokenizer", lambda: CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
        ),
        "scheduler": _attempt(
            path / "scheduler", lambda: DDIMScheduler.from_pretrained(path / "scheduler", local_files_only=True)
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
    how |= {"use_safetensors": bool(found), "variant": variant, "local_files_only": True, "output_loading_info": True}
    network, report = _attempt(folder, lambda: kind.from_pretrained(folder, **how))
    _complete(folder, report["missing_keys"])
    _complete(folder, (name for name, *_ in report.get("mismatched_keys", ())), "have another shape for")
    return network


def _complete(source: Path, missing: Iterable[str], how: str = "lack") -> None:
    absent = sorted(name for name in missing if not name.endswith("position_ids"))
    if absent:
        named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise ModelError(f"the weights in {str(source)!r} {how} {named}; they do not belong to the configuration")


def _checkpoint(path: Path, config: str | os.PathLike[str] | None, allow_pickle: bool) -> dict[str, Any]:
    """The original layout: one file for all networks. diffusers knows what its tensors are called; a folder says how the networks are built."""
    if path.suffix != ".safetensors" and not allow_pickle:
        raise ModelError(
            f"{str(path)!r} is not a .safetensors file; convert it, or allow pickles (which can run code) with allow_pickle=True"
        )
    tensors = _attempt(path, lambda: load_single_file_checkpoint(str(path)))
    folder = _cached_configuration(path, tensors) if config is None else Path(config)
    if not folder.is_dir():
        raise ModelError(
            f"no configuration folder at {str(config)!r}; give a diffusers folder of the same architecture"
        )
    _check(folder)

    def network(part: str, kind: Any, convert: Callable[[Any, Any], dict[str, Tensor]]) -> Any:
        settings = kind.load_config(folder / part)
        with torch.device("meta"):
            empty = kind.from_config(settings)
        return _filled(path, empty.to_empty(device="cpu"), convert(tensors, settings))

    def text_encoder() -> Any:
        empty = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder", local_files_only=True))
        open_clip = any(name.startswith("cond_stage_model.model.") for name in tensors)
        named = convert_open_clip_checkpoint(empty, tensors) if open_clip else convert_ldm_clip_checkpoint(tensors)
        outer = "text_model." if hasattr(empty, "text_model") else ""  # gone in transformers 5.6
        return _filled(
            path, empty, {outer + name.removeprefix("text_model."): tensor for name, tensor in named.items()}
        )

    return {
        "unet": _attempt(path, lambda: network("unet", UNet2DConditionModel, convert_ldm_unet_checkpoint)),
        "vae": _attempt(path, lambda: network("vae", AutoencoderKL, convert_ldm_vae_checkpoint)),
        "text_encoder": _attempt(path, text_encoder),
    } | _without_weights(folder)


def _cached_configuration(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Where an earlier download by diffusers left the configuration of a checkpoint's family."""
    family = fetch_diffusers_config(tensors)["pretrained_model_name_or_path"]
    try:
        return Path(snapshot_download(family, local_files_only=True))
    except LocalEntryNotFoundError as absent:
        advice = "give config=FOLDER, a diffusers folder with the configuration and tokenizer of the same architecture"
        raise ModelError(
            f"{str(path)!r} holds weights alone (diffusers takes it for {family}, which the hub's cache has not); {advice}"
        ) from absent


def _filled(source: Path, network: Any, tensors: Mapping[str, Tensor]) -> Any:
    """`network` with its weights overwritten by `tensors`, every one of them."""
    _complete(source, network.load_state_dict(tensors, strict=False).missing_keys)
    return network


def _attempt(where: Path, read: Callable[[], T]) -> T:
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

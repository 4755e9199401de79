"""Build networks without memory, compare them with the weights, and only then read these.

Built on PyTorch's "meta" device a network has shapes and no numbers. So a configuration costs
nothing, whatever it says, until the weights are known to be its own.
"""

import inspect
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ...errors import ModelError
from ...system.incoming import read_json, told_as
from ..unet import objections_to
from .schema import TEXT_ENCODER, UNET, VAE, Schema, checked
from .stored import Stored

__all__ = [
    "NETWORKS",
    "build_empty",
    "check_built",
    "check_together",
    "fill",
    "fitting",
    "read_configuration",
]

NETWORKS = ("unet", "vae", "text_encoder")
"""Components with weights; the names of their folders."""

_SCHEMAS: Mapping[str, Schema] = {"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER}

_BUILDING = threading.Lock()
"""Held while new tensors get no memory: PyTorch notes that for the thread and for the process."""

_RENAMED = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
"""What a VAE's attention was called until 2023; Stable Diffusion 1.5 is published so."""

_TEXT_MODEL = "text_model."
"""What the names of a text encoder's weights begin with in files, and until transformers 5.6."""


_LARGEST = torch.finfo(torch.float16).max
"""No published weight is larger: a flipped bit of its exponent makes it so."""


# What a folder says.


def read_configuration(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return the settings of a folder's networks, by network.

    Raises:
        ModelError: For a configuration that cannot be read, or of a U-Net that cannot be dragged.
    """
    said = {name: _said(path / name / "config.json") for name in NETWORKS}
    settings: dict[str, Mapping[str, Any]] = {
        name: checked(said[name], _SCHEMAS[name], str(path / name / "config.json"))
        for name in NETWORKS
    }
    reasons = objections_to(said["unet"])
    if reasons:
        raise ModelError(
            f"the U-Net in {str(path)!r} cannot be dragged: {'; '.join(reasons)}. "
            "Use a Stable Diffusion 1.x or 2.x model"
        )
    return settings


def _said(file: Path) -> Any:
    """Return what a configuration says; a whole CLIP's, what it says of its text encoder."""
    said = read_json(file, ModelError)
    return said.get("text_config", said) if isinstance(said, dict) else said


def build_empty(path: Path, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Build networks without weights or memory, by name.

    Args:
        path: Their folder, for messages.
        settings: By network, as `read_configuration` returns them.

    Raises:
        ModelError: For settings that no network can be built of.
    """
    networks = {}
    for name, build in _BUILDERS.items():
        with told_as(ModelError, f"{str(path / name)!r} could not be loaded"), _without_memory():
            networks[name] = build(settings[name])
    return networks


def _unet(settings: Mapping[str, Any]) -> Any:
    return UNet2DConditionModel(**_of(UNet2DConditionModel, settings))


def _vae(settings: Mapping[str, Any]) -> Any:
    return AutoencoderKL(**_of(AutoencoderKL, settings))


def _text_encoder(settings: Mapping[str, Any]) -> Any:
    return CLIPTextModel(CLIPTextConfig(**_of(CLIPTextConfig, settings)))


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "unet": _unet,
    "vae": _vae,
    "text_encoder": _text_encoder,
}


def _of(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a class takes."""
    fields = inspect.signature(kind).parameters
    return {name: value for name, value in settings.items() if name in fields}


@contextmanager
def _without_memory() -> Iterator[None]:
    with _BUILDING, torch.device("meta"):
        yield


# Whether it holds together.


def check_together(name: str, networks: Mapping[str, Any]) -> None:
    """Refuse networks that do not belong together, or whose blocks do not.

    Args:
        name: Of the model, for messages.
        networks: By name; their weights are not looked at.

    Raises:
        ModelError: What an edit would fail with.
    """
    unet, vae, text_encoder = (networks[network] for network in NETWORKS)
    written, read = text_encoder.config.hidden_size, unet.config["cross_attention_dim"]
    if written != read:
        raise ModelError(
            f"the text encoder of {name!r} has width {written}, its U-Net reads {read}; "
            "give the two that belong together"
        )
    blocks = [
        len(vae.config[key]) for key in ("block_out_channels", "down_block_types", "up_block_types")
    ]
    if len(set(blocks)) > 1:
        raise ModelError(
            f"the VAE of {name!r} has {blocks[0]} block_out_channels for {blocks[1]} blocks down "
            f"and {blocks[2]} up; is its configuration whole?"
        )


def check_built(networks: Mapping[str, Any], where: str) -> None:
    """Refuse networks that were built elsewhere of what a folder must not say either.

    Raises:
        ModelError: Naming the field.
    """
    for name, schema in _SCHEMAS.items():
        config = networks[name].config
        said = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        with told_as(ModelError, f"the configuration of {where}'s {name} cannot be read"):
            plain = json.loads(json.dumps({key: said[key] for key in schema if key in said}))
        checked(plain, schema, f"{where}'s {name}")


# Its weights.


def fitting(source: Path, name: str, network: nn.Module, stored: Stored) -> Stored:
    """Return the stored tensors that a network is made of, by its names for them.

    Args:
        source: Where they are stored, for messages.
        name: Of the network.
        network: Without memory.
        stored: By the names in the file.

    Raises:
        ModelError: If one is missing, has another shape or kind, or one too many is there: then the
            configuration is another network's.
    """
    wanted = network.state_dict()
    found = {_spelled(key, wanted): tensor for key, tensor in stored.items()}
    _complain(source, "lack", wanted.keys() - found.keys())
    other = (key for key in wanted if tuple(wanted[key].shape) != found[key].shape)
    _complain(source, "have another shape for", other)
    whole = (key for key in wanted if not found[key].dtype.is_floating_point)
    _complain(source, "have whole numbers (quantised?) for", whole)
    if name != "text_encoder":  # whose files often hold the rest of CLIP
        _complain(source, "have, unlike the configuration,", found.keys() - wanted.keys())
    return {key: found[key] for key in wanted}


def _spelled(key: str, wanted: Mapping[str, Any]) -> str:
    """Return the name that a network has for a tensor; its own where it has none."""
    new = key
    for old, now in _RENAMED.items():
        new = new.replace(old, now)
    names = (key, new, key.removeprefix(_TEXT_MODEL), _TEXT_MODEL + key)
    return next((name for name in names if name in wanted), key)


def _complain(source: Path, verb: str, names: Iterable[str]) -> None:
    """Refuse weights, with the first few names, unless there are none."""
    first = sorted(name for name in names if not name.endswith("position_ids"))
    if not first:
        return
    several = ", ".join(first[:3])
    if len(first) > 3:
        several += f" and {len(first) - 3} more"
    raise ModelError(
        f"the weights in {str(source)!r} {verb} {several}; they do not belong to the configuration"
    )


def fill(source: Path, network: nn.Module, stored: Stored) -> None:
    """Give a network its weights, which lie in memory of their own from then on.

    Args:
        source: Where they are stored, for messages.
        network: Without memory.
        stored: As `fitting` returns them.

    Raises:
        ModelError: If one is NaN, infinite or too large.
    """
    weights = {name: _finite(source, name, tensor.read()) for name, tensor in stored.items()}
    with told_as(ModelError, f"{str(source)!r} could not be loaded"):
        network.load_state_dict(weights, assign=True)
        for module in network.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta:
                    module.register_buffer(name, _counted(name, buffer), persistent=False)
    if any(weight.is_meta for weight in network.parameters()):
        raise ModelError(
            f"{str(source)!r} could not be loaded: another thread makes diffusers build every "
            "network of this process without memory (low_cpu_mem_usage); load again after it"
        )


def _finite(source: Path, name: str, weight: Tensor) -> Tensor:
    """Return a weight if it is made of numbers: reading its extremes takes 0.1 s per GB."""
    extremes = (weight.float() if weight.dtype.itemsize == 1 else weight).aminmax()
    if not all(abs(float(extreme)) <= _LARGEST for extreme in extremes):
        raise ModelError(
            f"the weights in {str(source)!r} have NaN, infinity or more than {_LARGEST:.0f} in "
            f"{name}; fetch them again"
        )
    return weight


def _counted(name: str, buffer: Tensor) -> Tensor:
    """Return a buffer that is in no file: the numbers of positions are the only one."""
    if name != "position_ids":
        raise ValueError(f"a buffer {name!r} that this engine does not know")
    return torch.arange(buffer.shape[-1], device="cpu").expand(buffer.shape)

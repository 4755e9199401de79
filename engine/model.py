"""A loaded Stable Diffusion model: the networks, frozen, and what belongs to them. How it gets here is loading's business."""

import concurrent.futures
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from torch import nn

from .autoencoder import Autoencoder
from .config import DragConfig
from .digest import digest
from .errors import DeviceError
from .unet import Schedule, UNet

__all__ = ["DTYPES", "Model", "Weights", "choose_device", "choose_dtype", "frozen_view"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
M = TypeVar("M", bound=nn.Module)


class Weights:
    """What networks compute with, known by content: read once, when first asked for. Weights that are changed afterwards are another model's.

    merged: the adapter that is in them now and how much of it, by content (`Used.key`); None where they are as they were loaded. merged_from: the
    adapter's file, where it came from one.
    """

    def __init__(self, networks: Mapping[str, Any], tokenizer: Any = None) -> None:
        self._networks, self._tokenizer = networks, tokenizer
        self.merged: tuple[str, float] | None = None
        self.merged_from = ""

    @cached_property
    def digest(self) -> str:
        """Of every weight, buffer and configuration, and of the tokenizer's vocabulary."""
        named = {
            f"{part} {name}": value
            for part, network in self._networks.items()
            for name, value in (*network.named_parameters(), *network.named_buffers())
        }
        configs = {part: _config(network) for part, network in self._networks.items()}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:  # hashing leaves the interpreter to others
            found = dict(zip(named, pool.map(digest, named.values()), strict=True))
        return digest(found, configs, _vocabulary(self._tokenizer))


def _config(network: Any) -> str:
    config = getattr(network, "config", {})
    said = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return repr(sorted((name, repr(value)) for name, value in said.items() if not name.startswith("_")))


def _vocabulary(tokenizer: Any) -> str:
    """Without what it remembers of the last call: padding and truncation."""
    if hasattr(tokenizer, "backend_tokenizer"):
        said = json.loads(tokenizer.backend_tokenizer.to_str())
        return json.dumps({name: said[name] for name in sorted(said) if name not in ("padding", "truncation")})
    return repr(sorted(tokenizer.get_vocab().items())) if hasattr(tokenizer, "get_vocab") else type(tokenizer).__name__


@dataclass(frozen=True, eq=False)
class Model:
    """name: where it came from. scheduler: its scheduler's configuration. defaults: the drag settings it brings (`drag.json`), else ours.

    how: what runs it and what was merged into it, by name: the same weights run otherwise give other bits.
    halves: what runs the VAE; PyTorch where it is None. loaded_with: what the command line says beside `name` to load it again.

    A VAE that we load runs in float32 where the U-Net is float16, because it overflows there; a pipeline keeps its own.
    """

    name: str
    unet: UNet
    vae: AutoencoderKL
    text_encoder: Any
    tokenizer: Any
    scheduler: Mapping[str, Any]
    device: torch.device
    defaults: DragConfig = field(default_factory=DragConfig)
    how: tuple[str, ...] = ()
    weights: Weights | None = None
    halves: Autoencoder | None = None
    loaded_with: tuple[str, ...] = ()

    @property
    def autoencoder(self) -> Autoencoder:
        return Autoencoder(self.vae) if self.halves is None else self.halves

    @property
    def digest(self) -> str:
        """What it computes, by content. The first call reads all weights (`read`)."""
        return digest(self.read().digest, dict(self.scheduler), str(self.dtype), str(self.vae.dtype), self.how)

    def read(self) -> Weights:
        """The weights it was loaded with."""
        if self.weights is None:
            networks = {"unet": self.unet.network, "vae": self.vae, "text_encoder": self.text_encoder}
            object.__setattr__(self, "weights", Weights(networks, self.tokenizer))
        assert self.weights is not None
        return self.weights

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def factor(self) -> int:
        """How many pixels a latent cell spans on each side: 8 for Stable Diffusion."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    def schedule(self, steps: int) -> Schedule:
        """The DDIM schedule of that many steps."""
        return Schedule.of(self.scheduler, steps)


def frozen_view(module: M) -> M:
    """The same module with the same weights in the same memory, but frozen and in evaluation mode; the original keeps its own state."""
    shared: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in module.parameters()
    }
    shared |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, shared).eval()


def choose_device(asked: str | torch.device) -> torch.device:
    """ "auto": CUDA if there is a device, else the CPU. Raises DeviceError for a device that is not here."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as unknown:
        raise DeviceError(f"{asked!r} is not a device; use auto, cpu, cuda or cuda:0") from unknown
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {str(asked)!r} is not supported; use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = f"PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        raise DeviceError(f"device {str(asked)!r} was asked for, but {seen}; use cpu")
    return device


def choose_dtype(asked: str | torch.dtype, device: torch.device) -> torch.dtype:
    """One of `DTYPES`, by name or itself. Raises DeviceError for another, or float16 on a CPU."""
    dtype = DTYPES.get(asked) if isinstance(asked, str) else asked
    if dtype is None or dtype not in DTYPES.values():
        raise DeviceError(f"precision {asked!r} is not supported; use {', '.join(DTYPES)}")
    if dtype == torch.float16 and device.type == "cpu":
        raise DeviceError(
            "float16 is not supported on the CPU (it is slow and overflows there); use float32 or bfloat16"
        )
    return dtype

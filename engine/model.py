"""A loaded Stable Diffusion model: the networks, frozen, and what belongs to them. How it gets here is loading's business."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from torch import nn

from .config import DragConfig
from .errors import DeviceError
from .unet import Schedule, UNet

__all__ = ["DTYPES", "Model", "choose_device", "choose_dtype", "frozen_view"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Model:
    """name: where it came from. scheduler: its scheduler's configuration. defaults: the drag settings it brings (`drag.json`), else ours.

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

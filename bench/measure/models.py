"""The models that are measured: ours, the golden one of the tests, a folder, or a full-size architecture with random weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.diffusion.weights import Weights
from dragnoise.engine.errors import ModelError
from dragnoise.engine.system.device import choose_device, choose_dtype

from ..work.architectures import ARCHITECTURES, Architecture

__all__ = ["GOLDEN", "model"]

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "model"


def model(name: str, device: str, dtype: str) -> Model:
    """name: "embedded", "golden" (in a checkout), "sd15", "sd21" (random weights, built on the device), or a diffusers folder.

    Raises ModelError, DeviceError.
    """
    if name in ARCHITECTURES:
        return _random(ARCHITECTURES[name], choose_device(device), dtype)
    if name == "golden" and not GOLDEN.is_dir():
        raise ModelError(
            f"the golden model lies in a checkout's tests, and {str(GOLDEN)!r} is not there; use embedded"
        )
    return load({"embedded": None, "golden": GOLDEN}.get(name, name), device=device, dtype=dtype)


def _random(architecture: Architecture, device: torch.device, dtype: str) -> Model:
    """Times do not depend on weights: noise of the usual size, so that nothing overflows. The text encoder is a stand-in: it is not measured."""
    torch.manual_seed(0)
    unet, vae = architecture.networks(device, choose_dtype(dtype, device))
    width = int(architecture.unet["cross_attention_dim"])
    text = _Text(width)
    return Model(
        architecture.name,
        UNet(unet),
        vae,
        text,
        _tokens,
        architecture.scheduler,
        device,
        DragConfig(),
        weights=Weights({"unet": unet, "vae": vae, "text_encoder": text}, _tokens),
    )


class _Text(torch.nn.Module):
    """A text encoder that knows one text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (
            torch.linspace(-1, 1, ids.shape[1] * self._width, device=ids.device)
            .sin()
            .view(1, -1, self._width),
        )


class _Tokenizer:
    model_max_length = 77

    def __call__(self, prompt: str, **how: Any) -> Any:
        return SimpleNamespace(
            input_ids=torch.zeros(1, 77, dtype=torch.int64) if "return_tensors" in how else []
        )


_tokens = _Tokenizer()

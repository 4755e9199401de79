"""Load the models that are measured.

They are the embedded one, the golden one of the tests, a folder's, or a full-size architecture with
random weights.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.load import load
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import HeldNetwork, UNet
from dragnoise.engine.diffusion.weights import Weights
from dragnoise.engine.errors import ModelError
from dragnoise.engine.system.device import choose_device, choose_dtype

from ..work.architectures import ARCHITECTURES, Architecture

__all__ = ["GOLDEN", "model"]

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "model"


def model(name: str, device: str, dtype: str) -> Model:
    """Load a model by its name.

    Args:
        name: "embedded", "golden" (in a checkout), "sd15" or "sd21" (random weights, built on the
            device), or a diffusers folder.
        device: "auto", "cpu" or "cuda".
        dtype: "float32", "bfloat16" or, on CUDA, "float16".

    Raises:
        ModelError: There is no such model.
        DeviceError: The device or the precision is not there.
    """
    if name in ARCHITECTURES:
        return _random(ARCHITECTURES[name], choose_device(device), dtype)
    if name == "golden" and not GOLDEN.is_dir():
        raise ModelError(
            "the golden model lies in a checkout's tests, "
            f"and {str(GOLDEN)!r} is not there; use embedded"
        )
    return load({"embedded": None, "golden": GOLDEN}.get(name, name), device=device, dtype=dtype)


def _random(architecture: Architecture, device: torch.device, dtype: str) -> Model:
    """Build a model with random weights: times do not depend on weights.

    Weights are noise of the usual size, so that nothing overflows. The text encoder is a stand-in,
    because it is not measured.
    """
    torch.manual_seed(0)
    unet, vae = architecture.networks(device, choose_dtype(dtype, device))
    width = int(architecture.unet["cross_attention_dim"])
    text = _TextEncoder(width)
    tokenizer = _Tokenizer()
    return Model(
        architecture.name,
        UNet(HeldNetwork(unet, packable=True)),
        vae,
        text,
        tokenizer,
        architecture.scheduler,
        device,
        DragConfig(),
        weights=Weights({"unet": unet, "vae": vae, "text_encoder": text}, tokenizer),
    )


class _TextEncoder(torch.nn.Module):
    """A text encoder that reads every text as the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        values = torch.linspace(-1, 1, ids.shape[1] * self._width, device=ids.device)
        return (values.sin().view(1, -1, self._width),)


class _Tokenizer:
    """A tokenizer that gives every text the same tokens."""

    model_max_length = 77

    def __call__(self, prompt: str, **settings: Any) -> Any:
        if "return_tensors" in settings:
            return SimpleNamespace(input_ids=torch.zeros(1, 77, dtype=torch.int64))
        return SimpleNamespace(input_ids=[])

"""Run PyTorch's operators one by one."""

import dataclasses

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Operators, UNet
from ..diffusion.unet.operators import FusedNorm
from .attention import Attention
from .backend import Backend, Gates, captured

__all__ = ["EAGER"]


def _build_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    """Return the network on plain operators.

    On CUDA maps are channels_last, which PyTorch's own normalisation would undo, and a whole pass
    is a graph.
    """
    operators = Operators(attention=attention.attend)
    if model.device.type == "cuda":
        operators = dataclasses.replace(
            operators, memory_format=torch.channels_last, norm=FusedNorm, part=_part
        )
    network = model.unet.network
    return UNet(network, operators, lambda part, run: captured(part, run, model.device)), {}


def _part(weight: Tensor) -> Tensor:
    """Return a copy of some of a convolution's weights, laid out as the whole is on CUDA."""
    return weight.contiguous(memory_format=torch.channels_last)


EAGER = Backend(
    "eager", "PyTorch's operators as they are", lambda model: [], build_unet=_build_unet
)

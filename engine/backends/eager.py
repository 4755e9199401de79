"""Run PyTorch's operators one by one."""

from dataclasses import replace

import torch
from torch import Tensor

from dragnoise.kernels.geglu import geglu

from ..diffusion.model import Model
from ..diffusion.unet import Operators, UNet
from ..diffusion.unet.operators import FusedNorm, FusedTokenNorm
from .attention import Attention
from .backend import Backend, Gates, captured

__all__ = ["EAGER", "FUSED_OPERATORS"]


def _part(weight: Tensor) -> Tensor:
    """Return a copy of some of a convolution's weights, laid out as the whole is on CUDA."""
    return weight.contiguous(memory_format=torch.channels_last)


FUSED_OPERATORS = Operators(
    memory_format=torch.channels_last,
    norm=FusedNorm,
    token_norm=FusedTokenNorm,
    gated=geglu,
    joint=True,
    part=_part,
)
"""What layers are computed with on CUDA: what lies between the products is in kernels of ours.

Maps are channels_last, which PyTorch's own normalisation would undo.
"""


def _build_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    """Return the network on plain operators, on CUDA on fused ones with whole passes as graphs."""
    usual = FUSED_OPERATORS if model.device.type == "cuda" else Operators()
    operators = replace(usual, attention=attention.attend)
    network = model.unet.network
    return UNet(network, operators, lambda part, run: captured(part, run, model.device)), {}


EAGER = Backend(
    "eager", "PyTorch's operators as they are", lambda model: [], build_unet=_build_unet
)

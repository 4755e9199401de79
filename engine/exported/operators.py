"""What layers are computed with where a graph is exported: the same sums, spelled so that they stay exact and general in any runtime."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..unet import Operators
from ..unet.operators import Conv, Norm

__all__ = ["EXPORTED"]


class _Conv(Conv):
    """A step's own bias is added, because a graph's convolution takes constants only."""

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is None:
            return super().__call__(hidden)
        return F.conv2d(hidden, self.weight, None, self.stride, self.padding) + bias[None, :, None, None]


class _Norm(Norm):
    """Statistics in float32, as PyTorch's own kernels have them inside; a graph has to say so."""

    def __call__(self, hidden: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        normed = F.group_norm(hidden.float(), self.groups, weight, bias, self.eps)
        return (F.silu(normed) if self.silu else normed).to(hidden.dtype)


EXPORTED = Operators(memory_format=torch.contiguous_format, conv=_Conv, norm=_Norm)

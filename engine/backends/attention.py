"""Compute attention: by PyTorch's own choice of kernel, with our gradients, or by xformers.

A text's keys and values are fixed in a drag. PyTorch's fused gradients on CUDA compute theirs all
the same; for fixed keys the gradient is ours, of the queries alone.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dragnoise.kernels.attention import attention, has_kernels

from ..diffusion.unet.operators import sdpa

__all__ = ["ATTENTION", "Attention", "by_pytorch"]

_HEAD_WIDTHS = (40, 80, 160)
"""Channels a head in Stable Diffusion 1.x."""


@dataclass(frozen=True)
class Attention:
    """A row of the table of attentions.

    Attributes:
        name: As options, results and cache keys have it.
        attend: Query, key, value [B, L, heads, d] -> [B, L, heads, d].
        objections: Lists why it cannot serve on a device in a dtype; empty if it can.
    """

    name: str
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    objections: Callable[[torch.device, torch.dtype], list[str]]


def by_pytorch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention by PyTorch's choice of kernel, on CUDA with our gradient for fixed keys."""
    fixed = query.requires_grad and not (key.requires_grad or value.requires_grad)
    if fixed and query.is_cuda and torch.is_grad_enabled() and has_kernels(query):
        return attention(query, key, value)
    return sdpa(query, key, value)


def _deterministic_objections(device: torch.device, dtype: torch.dtype) -> list[str]:
    if device.type == "cuda":
        return []
    return [f"on {device.type} sdpa gives the same bits every time already"]


def _xformers(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention

    attended: Tensor = memory_efficient_attention(query, key, value)
    return attended


def _xformers_objections(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Try it: a build for another PyTorch imports, and fails when it is called."""
    if importlib.util.find_spec("xformers") is None:
        return ["xformers is not installed (pip install 'dragnoise[xformers]')"]
    if device.type != "cuda":
        return [f"xformers has no attention for {device.type}"]
    try:
        for width in _HEAD_WIDTHS:
            query = torch.zeros(1, 16, 2, width, device=device, dtype=dtype, requires_grad=True)
            _xformers(query, query, query).sum().backward()
    except (ImportError, NotImplementedError, RuntimeError) as refused:
        name = torch.cuda.get_device_name(device)
        return [f"xformers refuses {dtype} on {name}: {str(refused).splitlines()[0]}"]
    return []


ATTENTION: Mapping[str, Attention] = {
    row.name: row
    for row in (
        Attention("sdpa", by_pytorch, lambda device, dtype: []),
        Attention("deterministic", attention, _deterministic_objections),
        Attention("xformers", _xformers, _xformers_objections),
    )
}
"""Attentions by name."""

"""What computes attention: PyTorch's own choice of kernel, or xformers' memory-efficient one."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.unet.operators import sdpa

__all__ = ["ATTENTION", "Attention"]


@dataclass(frozen=True)
class Attention:
    """attend: query, key, value [B, L, heads, d] -> [B, L, heads, d]. objections: why it cannot serve on (device, dtype); empty if it can."""

    name: str
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    objections: Callable[[torch.device, torch.dtype], list[str]]


def _xformers(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention

    found: Tensor = memory_efficient_attention(query, key, value)
    return found


def _objections_to_xformers(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Asked of the installation itself: a build for another PyTorch imports, and fails when it is called."""
    if importlib.util.find_spec("xformers") is None:
        return ["xformers is not installed (pip install 'dragnoise[xformers]')"]
    if device.type != "cuda":
        return [f"xformers has no attention for {device.type}"]
    try:
        for heads_of in (40, 80, 160):
            query = torch.zeros(1, 16, 2, heads_of, device=device, dtype=dtype, requires_grad=True)
            _xformers(query, query, query).sum().backward()
    except (ImportError, NotImplementedError, RuntimeError) as refused:
        return [
            f"xformers refuses {dtype} on {torch.cuda.get_device_name(device)}: {str(refused).splitlines()[0]}"
        ]
    return []


ATTENTION = {
    "sdpa": Attention("sdpa", sdpa, lambda device, dtype: []),
    "xformers": Attention("xformers", _xformers, _objections_to_xformers),
}

"""Hold a network whose convolutions may be packed: the weights of each lie plain or packed, once.

oneDNN gives back the very bits that it packed, so what a backend has packed can stand for the plain
weights, which few others read. It stands in its module, as a parameter of PyTorch's layout
`torch._mkldnn`: the same shape and dtype, and an error from whatever cannot compute with it. Those
who know plain weights alone (diffusers' own forward pass, exports, compilers, callers) get them for
good by asking for the network.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

__all__ = ["ConvWeight", "HeldNetwork", "plain"]

_SWITCHING = threading.Lock()
"""Held while a weight changes places; nothing waits for anything under it."""


def plain(weight: Tensor) -> Tensor:
    """Return a weight as it was before it was packed; a plain one itself."""
    return weight.to_dense() if weight.is_mkldnn else weight


class HeldNetwork:
    """A network of diffusers, with its convolutions as they are held.

    Args:
        network: The network.
        packable: Whether packed weights may stand for plain ones: nobody else has the network.

    Attributes:
        network: The network as it lies, to read anything but the weights of its convolutions.
    """

    def __init__(self, network: UNet2DConditionModel, packable: bool = False) -> None:
        self.network = network
        self._packable = packable

    def lend(self) -> UNet2DConditionModel:
        """Return the network with plain weights, which it keeps from now on."""
        if self._packable:
            with _SWITCHING, torch.inference_mode(False):
                for module in self.network.modules():
                    if isinstance(module, nn.Conv2d) and module.weight.is_mkldnn:
                        module.weight = _parameter(module.weight.to_dense())
                self._packable = False
        return self.network

    def give_up(self, module: nn.Conv2d, packed: Tensor) -> bool:
        """Let what was packed of a convolution's weights stand for them, if it may."""
        with _SWITCHING:
            if self._packable:
                module.weight = _parameter(packed)
            return self._packable

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: packed weights cannot be copied."""
        return {"network": self.lend(), "_packable": False}


def _parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _as_it_lies(part: Tensor) -> Tensor:
    return part


@dataclass(frozen=True, eq=False)
class ConvWeight:
    """The weights of a convolution [O, C, k, k], or of some of its input channels.

    They are read in their module whenever they are wanted.

    Attributes:
        module: The convolution.
        holder: What its module belongs to; None where plain weights stay.
        channels: Of its input; None for all.
        lay_out: How a part is laid out in memory.
    """

    module: nn.Conv2d
    holder: HeldNetwork | None = None
    channels: slice | None = None
    lay_out: Callable[[Tensor], Tensor] = _as_it_lies

    @classmethod
    def of(cls, weight: Tensor) -> "ConvWeight":
        """Return a weight [O, C, k, k] that is in no network, where it lies."""
        outer, inner, *kernel = weight.shape
        module = nn.Conv2d(inner, outer, kernel, bias=False, device="meta")  # type: ignore[arg-type]
        module.weight = _parameter(weight)
        return cls(module)

    @property
    def held(self) -> Tensor:
        """All of the module's weights, plain or packed."""
        return self.module.weight

    @property
    def packed(self) -> Tensor | None:
        """What stands for the weights, if it does and they are all of the module's."""
        held = self.held
        return held if held.is_mkldnn and self.channels is None else None

    def plain(self) -> Tensor:
        """Return the weights as they were loaded."""
        weight = plain(self.held)
        return weight if self.channels is None else self.lay_out(weight[:, self.channels])

    def part(self, channels: slice, lay_out: Callable[[Tensor], Tensor]) -> "ConvWeight":
        """Return the weights of some of the input channels."""
        return replace(self, channels=channels, lay_out=lay_out)

    def give_up(self, packed: Tensor) -> bool:
        """Let what was packed of the weights stand for them, if it may and is all of them."""
        if self.holder is None or self.channels is not None:
            return False
        return self.holder.give_up(self.module, packed)

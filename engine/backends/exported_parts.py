"""Parts that are run from exported files, whatever runs them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..errors import BackendError
from ..exported import Extent, Signature, multiple_px, precision_of, signature

__all__ = ["Executable", "ExportedParts", "wants_gradient"]


W = TypeVar("W")


class Executable(Protocol):
    """A file, loaded."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, the caller's own: no later call writes to them."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What it is and what memory it holds."""
        ...


class ExportedParts(Generic[W]):
    """The frozen parts of a model, by their names in `exported.PARTS`. A file is opened when it is first needed, once for all extents that it serves;
    those of the last `KEPT` parts and extents stay open.

    find: where the file of a part on an extent lies, and what it must be; it depends on the adapter that is merged at the time. load: opens it, for a
    part and extent. closed: how many parts and extents have had to make room.
    """

    KEPT = 20

    def __init__(
        self,
        model: Model,
        find: Callable[[str, Extent], tuple[Path, W]],
        load: Callable[[Path, W, str, Extent], Executable],
    ) -> None:
        self._model, self._find, self._load = model, find, load
        self._opened: OrderedDict[tuple[Any, ...], Executable] = OrderedDict()
        self._by_file: WeakValueDictionary[Path, Executable] = WeakValueDictionary()
        self._names: dict[tuple[str, Extent], Signature] = {}
        self._lock = threading.Lock()
        self.closed = 0

    def down(self, latent: Tensor, times: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        return self.run("down", self._of_latent(latent), latent, times, text)

    def middle(self, bottom: Tensor, times: Tensor, text: Tensor) -> Tensor:
        multiple = multiple_px(self._model)
        extent = Extent(bottom.shape[2] * multiple, bottom.shape[3] * multiple, len(bottom))
        (bottleneck,) = self.run("middle", extent, bottom, times, text)
        return bottleneck

    def up(
        self, bottleneck: Tensor, skips: tuple[Tensor, ...], times: Tensor, text: Tensor
    ) -> Tensor:
        (eps,) = self.run("up", self._of_latent(skips[0]), bottleneck, *skips, times, text)
        return eps

    def unet(self, latent: Tensor, times: Tensor, text: Tensor) -> Tensor:
        (eps,) = self.run("unet", self._of_latent(latent), latent, times, text)
        return eps

    def unet_replaced(
        self, latent: Tensor, times: Tensor, text: Tensor, bottleneck: Tensor
    ) -> Tensor:
        (eps,) = self.run("unet-replaced", self._of_latent(latent), latent, times, text, bottleneck)
        return eps

    def encoder(self, pixels: Tensor) -> Tensor:
        (latent,) = self.run(
            "vae-encoder", Extent(pixels.shape[2], pixels.shape[3], len(pixels)), pixels
        )
        return latent

    def decoder(self, latent: Tensor) -> Tensor:
        (pixels,) = self.run("vae-decoder", self._of_latent(latent), latent)
        return pixels

    def files(self) -> list[dict[str, Any]]:
        """Describe every file that is open."""
        with self._lock:
            return [executable.to_dict() for executable in dict.fromkeys(self._opened.values())]

    def _of_latent(self, latent: Tensor) -> Extent:
        factor = self._model.factor
        return Extent(latent.shape[2] * factor, latent.shape[3] * factor, len(latent))

    def run(self, part: str, extent: Extent, *given: Tensor) -> tuple[Tensor, ...]:
        """Any part by its name: outputs in the order of its signature."""
        if (part, extent) not in self._names:
            self._names[part, extent] = signature(self._model, part, extent)
        names = self._names[part, extent]
        dtype = precision_of(self._model, part)
        inputs = {}
        for (name, shape), tensor in zip(names.inputs.items(), given, strict=True):
            if tuple(tensor.shape) != shape:
                raise BackendError(
                    f"{part} takes {name} of shape {list(shape)} at {extent}, got {list(tensor.shape)}"
                )
            inputs[name] = tensor.detach().to(dtype).contiguous()
        found = self._executable(part, extent)(inputs)
        return tuple(found[name] for name in names.outputs)

    def _executable(self, part: str, extent: Extent) -> Executable:
        merged = None if part.startswith("vae-") else self._model.read().merged
        key = part, extent, merged
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self._file(part, extent)
                while len(self._opened) > self.KEPT:
                    self._opened.popitem(last=False)
                    self.closed += 1
            self._opened.move_to_end(key)
            return self._opened[key]

    def _file(self, part: str, extent: Extent) -> Executable:
        path, wanted = self._find(part, extent)
        found = self._by_file.get(path)
        if found is None:
            self._by_file[path] = found = self._load(path, wanted, part, extent)
        return found


def wants_gradient(given: tuple[Any, ...]) -> bool:
    """Whether a part is to be differentiated: exported ones cannot be."""
    leaves = torch.utils._pytree.tree_leaves(given)
    return torch.is_grad_enabled() and any(
        isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves
    )

"""Assemble a model whose parts are run by several backends.

PyTorch runs a part where a gradient is wanted, exported parts where none is.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.parts import (
    DOWN,
    MIDDLE,
    UNET_REPLACED,
    UP,
    VAE_DECODER,
    Part,
    PartFunction,
)
from ..diffusion.unet import UNet
from ..diffusion.vae import Autoencoder, fused_vae
from ..system.cuda_graphs import Captured, Graph, graph_on
from .exported_parts import ExportedParts, needs_gradient
from .placement import Placement

__all__ = ["CapturedWhile", "assemble"]


def assemble(
    model: Model,
    placement: Placement,
    networks: Mapping[str, UNet],
    exported: Mapping[str, ExportedParts[Any]],
    tags: tuple[str, ...],
) -> Model:
    """Return the model with its parts run as placed.

    Args:
        model: As it was loaded.
        placement: With the drag's backend filled in.
        networks: The U-Net by each of PyTorch's backends that is placed.
        exported: Exported parts by each of the other backends that is placed.
        tags: What the model's cache keys are to have of this, beside the weights.
    """
    unet = networks[placement.drag]
    if placement.frozen.keys() - {VAE_DECODER.placed_by}:
        unet = unet.wrapped(_UNetParts(model, placement, networks, exported))
    halves = _autoencoder(model, exported.get(placement.vae or ""))
    return replace(model, unet=unet, halves=halves, how=(*model.how, *tags))


def _autoencoder(model: Model, exported: ExportedParts[Any] | None) -> Autoencoder | None:
    """Return what runs the VAE: exported parts, fused layers on CUDA, or None for the VAE's own."""
    if exported is not None:
        return Autoencoder(
            model.vae, lambda part, run: _unless_gradient(exported.function(part), run)
        )
    return Autoencoder(fused_vae(model.vae)) if model.device.type == "cuda" else None


@dataclass(frozen=True)
class _UNetParts:
    """Wraps every part of a U-Net with what its placement says; attributes as for `assemble`."""

    model: Model
    placement: Placement
    networks: Mapping[str, UNet]
    exported: Mapping[str, ExportedParts[Any]]

    def __call__(self, unet: UNet, part: Part, run: PartFunction) -> PartFunction:
        """Return what runs a part of `unet`; run: what the drag's backend runs."""
        if not part.exported:
            return run
        frozen = self._whole(unet, part, run) if part.whole else self._piece(part, run)
        return run if frozen is run else _unless_gradient(frozen, run)

    def _piece(self, part: Part, run: PartFunction) -> PartFunction:
        """Return what runs down, middle or up."""
        backend = self.placement.frozen.get(part.placed_by, self.placement.drag)
        if backend == self.placement.drag:
            return run
        if backend in self.networks:
            return self.networks[backend].run(part)
        exported = self.exported[backend].function(part)
        return _with_features(exported, run) if part.has_features else exported

    def _whole(self, unet: UNet, part: Part, run: PartFunction) -> PartFunction:
        """Return what runs a whole pass; on CUDA as a graph."""
        frozen = self.placement.frozen
        if part.placed_by in frozen:
            return self._captured(self.exported[frozen[part.placed_by]].function(part))
        replaced = part is UNET_REPLACED
        pieces = (DOWN, UP) if replaced else (DOWN, MIDDLE, UP)
        if not any(piece.placed_by in frozen for piece in pieces):
            return run

        def composed(latent: Tensor, times: Tensor, text: Tensor, *bottleneck: Tensor) -> Tensor:
            *skips, bottom = unet.run(DOWN)(latent, times, text)
            between = bottleneck[0] if replaced else unet.run(MIDDLE)(bottom, times, text)
            output: Tensor = unet.run(UP)(between, tuple(skips), times, text, None, True)[1]
            return output

        return self._captured(composed)

    def _captured(self, run: PartFunction) -> PartFunction:
        if self.model.device.type != "cuda":
            return run
        return CapturedWhile(run, graph_on(self.model.device), self._validity)

    def _validity(self) -> tuple[object, ...]:
        """Return what changes when a captured pass becomes wrong: it holds addresses of plans."""
        closed = (parts.closed for parts in self.exported.values())
        return self.model.weights.merged, *closed


class CapturedWhile:
    """A `Captured` for each thread, made anew when `validity()` changes.

    Exported parts are other files for another adapter, are closed when too many are open, and
    have their room to work in for a thread.
    """

    def __init__(
        self,
        run: PartFunction,
        capture: Callable[[Callable[[], None]], Graph],
        validity: Callable[[], object],
    ) -> None:
        self._run = run
        self._capture = capture
        self._validity = validity
        self._of_thread = threading.local()

    def __call__(self, *inputs: Tensor) -> Tensor:
        validity = self._validity()
        seen = getattr(self._of_thread, "validity", None)
        if seen != validity or not hasattr(self._of_thread, "captured"):
            self._of_thread.validity = validity
            self._of_thread.captured = Captured(self._run, self._capture)
        output: Tensor = self._of_thread.captured(*inputs)
        return output


def _with_features(exported: PartFunction, run: PartFunction) -> PartFunction:
    """Return `up` with the U-Net's signature.

    PyTorch runs it when a feature map is wanted, because exported parts return none in an edit.
    """

    def up(
        bottleneck: Tensor,
        skips: tuple[Tensor, ...],
        times: Tensor,
        text: Tensor,
        feature_block: int | None = None,
        output: bool = True,
    ) -> Any:
        if feature_block is not None:
            return run(bottleneck, skips, times, text, feature_block, output)
        return None, exported(bottleneck, skips, times, text)

    return up


def _unless_gradient(frozen: PartFunction, differentiable: PartFunction) -> PartFunction:
    """Return a part that runs `frozen`, or `differentiable` where an input wants a gradient."""
    return lambda *inputs: (differentiable if needs_gradient(inputs) else frozen)(*inputs)

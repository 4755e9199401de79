"""Merge adapters into a model's weights where they lie, and take them out again bit for bit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...errors import AdapterError
from ...system.incoming import shown
from ..model import Model
from .adapter import Adapter, AdapterUse

__all__ = ["Adapters"]

_LARGEST = 2.0**15
"""Half of what float16 can hold; weights of a trained network are below 100."""

_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
"""Families of models by the width of their text."""

_BETWEEN = ("between two adapters", 0.0)
"""Stands for the merged adapter while weights change; no adapter has this key."""


class _Entered(threading.local):
    """The adapter that a thread has entered last; None outside."""

    last: AdapterUse | None = None


class Adapters:
    """A switch between adapters: the one place where a model's working weights are changed.

    Merging writes into the weights where they lie, so that compiled code, graphs and views stay
    valid and packed weights notice; what was there is kept and comes back bit for bit. What is cut
    from convolutions (folded slices) is never touched: adapters that change convolutions are
    refused.

    One thread at a time works with a model's weights, the one that owns its device. A switch itself
    is whole in any thread; nothing is held between switches, so that no interrupt of a caller can
    leave others waiting.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._plain: dict[str, Tensor] = {}
        self._merged: tuple[str, float] | None = None
        self._switching = threading.Lock()
        self._entered = _Entered()

    @contextmanager
    def active(self, use: AdapterUse) -> Iterator[None]:
        """Work with an adapter merged, or with the weights as they were loaded.

        Weights stay as they are afterwards, until others are wanted. Entered inside another
        `active` (by a callback that edits), they are the outer one's again on leaving.

        Raises:
            AdapterError: For an adapter of another model.
        """
        outer = self._entered.last
        self._entered.last = use
        try:
            self._merge(use)
            yield
        finally:
            self._entered.last = outer
            if outer is not None:
                self._merge(outer)

    def _merge(self, use: AdapterUse) -> None:
        with self._switching:
            if self._merged != use.key:
                self._switch(use)

    def check(self, use: AdapterUse) -> None:
        """Refuse an adapter that cannot be merged into this model, without merging it.

        Raises:
            AdapterError: For one of another model, or one whose numbers no weight can take.
        """
        if use.adapter is not None:
            self._layers(use.adapter)
            _check_numbers(use.adapter, use.scale)

    @torch.no_grad()
    def _switch(self, use: AdapterUse) -> None:
        weights = self._model.weights
        weights.freeze_digest()  # of the weights as they were loaded, before they change
        adapter = None if use.key is None else use.adapter
        layers = {} if adapter is None else self._layers(adapter)
        if adapter is not None:
            _check_numbers(adapter, use.scale)
        self._merged = _BETWEEN  # whatever interrupts this: the next merge begins with `_plain`
        for name, plain in self._plain.items():
            self._weight(name).copy_(plain)
        self._plain = {}
        for name, down, up in () if adapter is None else adapter.matrices:
            weight = layers[name]
            self._plain[name] = weight.detach().clone()
            change = (up.to(weight.device) @ down.to(weight.device)).view_as(weight)
            weight.copy_((weight.float() + use.scale * change).to(weight.dtype))
        weights.merged = use.key
        weights.merged_from = "" if adapter is None else adapter.file
        self._merged = use.key

    def _layers(self, adapter: Adapter) -> dict[str, Tensor]:
        """Return the weights that an adapter changes, all checked before any is changed."""
        layers = {}
        for name, down, up in adapter.matrices:
            weight = self._weight(name)
            rows, columns = weight.flatten(1).shape
            rank = len(down) if down.ndim else 0
            if (up.shape, down.shape) != ((rows, rank), (rank, columns)):
                raise AdapterError(
                    f"the adapter changes {shown(name)} by {list(up.shape)} x {list(down.shape)}, "
                    f"which is {list(weight.shape)} here: it was made for another model"
                    f"{self._family(adapter)}"
                )
            layers[name] = weight
        return layers

    def _weight(self, name: str) -> Tensor:
        """Return the weight of a layer that can be adapted.

        Linear ones, and a transformer's projections in and out, which in 1.x are 1 x 1 convolutions
        and are computed as linear ones.
        """
        try:
            layer = self._model.unet.held.network.get_submodule(name)
        except AttributeError as missing:
            raise AdapterError(
                f"the adapter changes {shown(name)}, which this model does not have: "
                "it was made for another model"
            ) from missing
        projection = name.endswith((".proj_in", ".proj_out")) and isinstance(layer, nn.Conv2d)
        if not projection and not isinstance(layer, nn.Linear):
            raise AdapterError(
                f"the adapter changes {shown(name)}, a {type(layer).__name__}; "
                "only linear layers can be adapted"
            )
        weight: Tensor = layer.weight
        return weight

    def _family(self, adapter: Adapter) -> str:
        """Say for which family an adapter was made, by the width of the text that it reads."""
        ours = self._model.unet.config["cross_attention_dim"]
        for name, down, _ in adapter.matrices:
            width = down.shape[-1] if down.ndim else 0
            if name.endswith("attn2.to_k") and width != ours and width in _FAMILIES:
                return f", {_FAMILIES[width]} (its text is {width} wide, this model's {ours})"
        return ""


def _check_numbers(adapter: Adapter, scale: float) -> None:
    """Refuse changes that no training makes, and with which a pass gives infinities.

    The product itself is computed only where its bound does not say enough.
    """
    for (name, down, up), bound in zip(adapter.matrices, adapter.reaches, strict=True):
        if abs(scale) * bound <= _LARGEST:
            continue
        largest = abs(scale) * float((up.double() @ down.double()).abs().max())
        if not largest <= _LARGEST:
            raise AdapterError(
                f"the adapter changes {shown(name)} by up to {largest:.3g} at scale {scale:g}; "
                f"no weight is above {_LARGEST:g}: lower the scale, or take another adapter if its "
                "training has failed"
            )

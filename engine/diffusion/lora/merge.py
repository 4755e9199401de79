"""Merge adapters into a model's weights where they lie, and take them out again bit for bit."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...errors import AdapterError
from ..model import Model
from .adapter import Adapter, AdapterUse

__all__ = ["Adapters"]


_BETWEEN = ("between two adapters", 0.0)
"""What is merged while weights change: no adapter's key."""


class Adapters:
    """The one place where a model's working weights are changed: which adapter is merged now, and who works with it.

    Merging writes into the weights where they lie, so that compiled code, graphs and views stay valid and packed weights notice; what was there is
    kept and comes back bit for bit. Weights stay merged until another adapter is wanted, or none. What is cut from convolutions (folded slices) is
    never touched: adapters that change convolutions are refused.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._plain: dict[str, Tensor] = {}
        self._now: tuple[str, float] | None = None
        self._inside: dict[object, int] = {}  # who works with it, and in which thread each began
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def active(self, used: AdapterUse) -> Iterator[None]:
        """The weights with that merged, or as they were loaded. Any number of threads work with the same one; who wants
        another waits until they are done, first come, first served. A thread may enter again with the same.
        Raises AdapterError for an adapter of another model."""
        wanted, ticket = used.key, object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while not self._may_enter(ticket, wanted):
                    self._changed.wait()
                if self._now != wanted:
                    self._switch(used.adapter if wanted else None, used.scale)
                self._inside[ticket] = threading.get_ident()
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                del self._inside[ticket]
                self._changed.notify_all()

    def _may_enter(self, ticket: object, wanted: tuple[str, float] | None) -> bool:
        """In its turn; before it, where its thread is inside already: whoever is waiting waits for that thread."""
        same = self._now == wanted
        again = same and threading.get_ident() in self._inside.values()
        return again or (self._queue[0] is ticket and (same or not self._inside))

    @torch.no_grad()
    def _switch(self, adapter: Adapter | None, scale: float) -> None:
        self._model.read().digest  # noqa: B018 of the weights as they were loaded, before they change
        layers = self._layers(adapter)
        self._now = _BETWEEN  # whatever interrupts this: who comes next begins with what was kept
        for name, plain in self._plain.items():
            self._weight(name).copy_(plain)
        self._plain = {}
        for name, down, up in () if adapter is None else adapter.matrices:
            weight = layers[name]
            self._plain[name] = weight.detach().clone()
            change = up.to(weight.device) @ down.to(weight.device)
            weight.copy_((weight.float() + scale * change).to(weight.dtype))
        weights = self._model.read()
        self._now = weights.merged = AdapterUse(adapter, scale).key
        weights.merged_from = "" if adapter is None else adapter.file

    def _layers(self, adapter: Adapter | None) -> dict[str, Tensor]:
        """The weights that it changes, before any is changed."""
        found = {}
        for name, down, up in () if adapter is None else adapter.matrices:
            weight = self._weight(name)
            if weight.shape != (len(up), down.shape[1]):
                raise AdapterError(
                    f"the adapter changes {name} by [{len(up)}, {down.shape[1]}], which is {list(weight.shape)} here: it was made for another model"
                )
            found[name] = weight
        return found

    def _weight(self, name: str) -> Tensor:
        try:
            layer = self._model.unet.network.get_submodule(name)
        except AttributeError as missing:
            raise AdapterError(
                f"the adapter changes {name}, which this model does not have: it was made for another model"
            ) from missing
        if not isinstance(layer, nn.Linear):
            raise AdapterError(
                f"the adapter changes {name}, a {type(layer).__name__}; only linear layers can be adapted"
            )
        return layer.weight

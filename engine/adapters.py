"""Adapters (LoRA): low-rank changes of a network's attention projections, W' = W + scale * B A (Hu et al., 2021), as files and merged in place.

A file is what diffusers writes and reads: safetensors, `unet.<layer>.lora_A.weight` [r, in] and `unet.<layer>.lora_B.weight` [out, r], alpha = r.
"""

import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .digest import digest
from .errors import AdapterError
from .files import writable, write_whole
from .model import Model

__all__ = ["FILE", "Adapter", "Adapters", "Used", "projections"]

FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file in a folder."""

_DOWN = (".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", "_lora.down.weight")
_UP = (".lora_B.weight", ".lora_B.default.weight", ".lora.up.weight", "_lora.up.weight")


@dataclass(frozen=True, eq=False)
class Adapter:
    """matrices: (layer, A [r, in], B [out, r]) each, float32, sorted by layer: a projection of the U-Net as diffusers names it. alpha / r is in B."""

    matrices: tuple[tuple[str, Tensor, Tensor], ...]

    @cached_property
    def digest(self) -> str:
        return digest("adapter", self.matrices)

    @property
    def rank(self) -> int:
        """The largest."""
        return max((len(down) for _, down, _ in self.matrices), default=0)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """A `.safetensors` file that `Adapter.load` and diffusers read; written whole or not at all. Raises OutputError."""
        target = writable(path, (".safetensors",))
        tensors = {}
        for layer, down, up in self.matrices:
            tensors[f"unet.{layer}.lora_A.weight"] = down.cpu().contiguous()
            tensors[f"unet.{layer}.lora_B.weight"] = up.cpu().contiguous()
        return write_whole(target, lambda part: save_file(tensors, part, metadata={"format": "pt"}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Adapter":
        """From a file, or the folder that diffusers saved it in; also of the older names `lora.down`, `lora.up` and `processor.to_q_lora`.

        Raises AdapterError for what is no adapter, or one that changes more than the U-Net's linear layers.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 not a mapping
                metadata = opened.metadata() or {}
        except (OSError, safetensors.SafetensorError) as failed:
            raise AdapterError(
                f"no adapter can be read from {str(file)!r} ({failed}); give a .safetensors file"
            ) from failed
        return cls(_matrices(file, tensors, metadata))


@dataclass(frozen=True)
class Used:
    """An adapter (None: none) and how much of it."""

    adapter: Adapter | None = None
    scale: float = 1.0

    @property
    def key(self) -> tuple[str, float] | None:
        """By content; None where nothing is changed."""
        return None if self.adapter is None or self.scale == 0 else (self.adapter.digest, float(self.scale))

    def on(self, model: Model) -> Model:
        """The model, as it is named while this is merged."""
        return model if self.key is None else replace(model, how=(*model.how, f"adapter {self.key}"))


def _matrices(
    file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[tuple[str, Tensor, Tensor], ...]:
    alphas = {name.removesuffix(".alpha"): float(value) for name, value in tensors.items() if name.endswith(".alpha")}
    downs, ups = _named(tensors, _DOWN), _named(tensors, _UP)
    left = [name for name in tensors if not name.endswith((*_DOWN, *_UP, ".alpha"))]
    if not downs or downs.keys() != ups.keys() or left:
        seen = left[0] if left else next(iter(downs.keys() ^ ups.keys()), "nothing")
        raise AdapterError(f"{str(file)!r} is not an adapter of a U-Net's linear layers: it has {seen!r}")
    told = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    shared = {name.removeprefix("unet."): value for name, value in told.items()}
    found = []
    for name in sorted(downs):
        down, up = downs[name].float(), ups[name].float()
        if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
            raise AdapterError(f"{str(file)!r}: {name} has matrices {list(down.shape)} and {list(up.shape)}")
        alpha = alphas.get(name, float(shared.get("lora_alpha", len(down))))
        found.append((_layer(name), down, up * (alpha / len(down))))
    return tuple(sorted(found, key=lambda one: one[0]))


def _named(tensors: Mapping[str, Tensor], endings: tuple[str, ...]) -> dict[str, Tensor]:
    return {
        name.removesuffix(ending): value
        for name, value in tensors.items()
        for ending in endings
        if name.endswith(ending)
    }


def _layer(name: str) -> str:
    """The layer as the U-Net names it, of any of the spellings."""
    layer = name.removeprefix("base_model.model.").removeprefix("unet.").replace(".processor.", ".")
    return f"{layer}.0" if layer.endswith("to_out") else layer


def projections(network: nn.Module) -> dict[str, nn.Linear]:
    """Every projection of an attention, by its name: what an adapter of ours changes."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in ("to_q", "to_k", "to_v", "0") and ".attn" in name
    }


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
        self._users = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def active(self, used: Used) -> Iterator[None]:
        """The weights with that merged, or as they were loaded. Any number of threads work with the same one; who wants
        another waits until they are done, first come, first served. Raises AdapterError for an adapter of another model."""
        wanted, ticket = used.key, object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or (self._users and self._now != wanted):
                    self._changed.wait()
                if self._now != wanted:
                    self._switch(used.adapter if wanted else None, used.scale)
                self._users += 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @torch.no_grad()
    def _switch(self, adapter: Adapter | None, scale: float) -> None:
        self._model.read().digest  # noqa: B018 of the weights as they were loaded, before they change
        layers = self._layers(adapter)
        for name, plain in self._plain.items():
            self._weight(name).copy_(plain)
        self._plain, self._now = {}, None
        if adapter is None:
            return
        for (_, down, up), (name, weight) in zip(adapter.matrices, layers.items(), strict=True):
            self._plain[name] = weight.detach().clone()
            change = up.to(weight.device) @ down.to(weight.device)
            weight.copy_((weight.float() + scale * change).to(weight.dtype))
        self._now = (adapter.digest, scale)

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

"""Adapters (LoRA): low-rank changes of a network's attention projections, W' = W + scale * B A (Hu et al., 2021), as files.

A file is what diffusers writes and reads: safetensors, `unet.<layer>.lora_A.weight` [r, in] and `unet.<layer>.lora_B.weight` [out, r], alpha = r.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor, nn

from ...cache.digest import digest
from ...cache.structure import storable
from ...errors import AdapterError, ConfigError
from ...system.files import writable, write_whole
from ..model import Model

__all__ = ["FILE", "Adapter", "AdapterUse", "projections"]


FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file in a folder."""


_OF_PEFT, _TOLD_BESIDE = "adapter_model.safetensors", "adapter_config.json"


_DOWN = (".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", "_lora.down.weight")


_UP = (".lora_B.weight", ".lora_B.default.weight", ".lora.up.weight", "_lora.up.weight")


@storable
@dataclass(frozen=True, eq=False)
class Adapter:
    """matrices: (layer, A [r, in], B [out, r]) each, float32, sorted by layer: a projection of the U-Net as diffusers names it. alpha / r is in B.

    file: where it was loaded from, if from anywhere. Raises AdapterError if a layer stands there twice.
    """

    matrices: tuple[tuple[str, Tensor, Tensor], ...]
    file: str = ""

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.matrices]
        if len(set(names)) < len(names):
            raise AdapterError(
                f"the adapter changes {max(names, key=names.count)} more than once; keep one of them"
            )

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
        """From a file, or the folder that diffusers or PEFT saved it in; also of the older names `lora.down`, `lora.up` and `processor.to_q_lora`.

        Raises AdapterError for what is no adapter, or one that changes more than the U-Net's linear layers.
        """
        file = _file(Path(path))
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 not a mapping
                metadata = opened.metadata() or {}
        except (OSError, safetensors.SafetensorError) as failed:
            raise AdapterError(
                f"no adapter can be read from {str(file)!r} ({failed}); give a .safetensors file"
            ) from failed
        return cls(_matrices(file, tensors, _told(file, metadata)), str(file))


@dataclass(frozen=True)
class AdapterUse:
    """An adapter (None: none) and how much of it: a finite number. Raises ConfigError."""

    adapter: Adapter | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        scale: Any = self.scale
        if (
            isinstance(scale, bool)
            or not isinstance(scale, int | float)
            or not math.isfinite(scale)
        ):
            raise ConfigError(f"an adapter's scale must be a finite number, got {scale!r}")

    @property
    def key(self) -> tuple[str, float] | None:
        """By content; None where nothing is changed."""
        return (
            None
            if self.adapter is None or self.scale == 0
            else (self.adapter.digest, float(self.scale))
        )

    def tag(self, model: Model) -> Model:
        """The model, as it is named while this is merged."""
        return (
            model if self.key is None else replace(model, how=(*model.how, f"adapter {self.key}"))
        )


def _file(path: Path) -> Path:
    """The adapter's file, where a folder is given: diffusers' or PEFT's."""
    if not path.is_dir():
        return path
    return path / (_OF_PEFT if (path / _OF_PEFT).exists() and not (path / FILE).exists() else FILE)


def _told(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's settings of an adapter: diffusers writes them into the file's header, PEFT into a file beside it."""
    beside = file.with_name(_TOLD_BESIDE)
    try:
        of_peft = beside.read_bytes() if file.name == _OF_PEFT and beside.exists() else b"{}"
        told = json.loads(metadata.get("lora_adapter_metadata", of_peft))
    except (OSError, ValueError) as wrong:
        raise AdapterError(
            f"the settings of {str(file)!r} cannot be read ({wrong}); save it again"
        ) from wrong
    if not isinstance(told, dict):
        raise AdapterError(
            f"the settings of {str(file)!r} must be a JSON object, got {type(told).__name__}"
        )
    return {name.removeprefix("unet."): value for name, value in told.items()}


def _matrices(
    file: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[tuple[str, Tensor, Tensor], ...]:
    downs, ups = _named(tensors, _DOWN), _named(tensors, _UP)
    left = [
        name
        for name in tensors
        if name.startswith("text_encoder") or not name.endswith((*_DOWN, *_UP, ".alpha"))
    ]
    if not downs or downs.keys() != ups.keys() or left:
        seen = left[0] if left else next(iter(downs.keys() ^ ups.keys()), "nothing")
        raise AdapterError(
            f"{str(file)!r} is not an adapter of a U-Net's linear layers: it has {seen!r}"
        )
    found = []
    for name in downs:
        down, up = downs[name].float(), ups[name].float()
        if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1] or not len(down):
            raise AdapterError(
                f"{str(file)!r}: {name} has matrices {list(down.shape)} and {list(up.shape)}"
            )
        alpha = _alpha(_layer(name), tensors.get(f"{name}.alpha"), told, len(down))
        up = up * (alpha / (math.sqrt(len(down)) if told.get("use_rslora") else len(down)))
        if not (down.isfinite().all() and up.isfinite().all()):
            raise AdapterError(f"{str(file)!r}: {name} is not finite; its training has failed")
        found.append((_layer(name), down, up))
    return tuple(sorted(found, key=lambda one: one[0]))


def _alpha(layer: str, own: Tensor | None, told: Mapping[str, Any], rank: int) -> float:
    """The layer's own in the file; else of the first of PEFT's patterns that it ends with; else of all; else its rank.

    PEFT's patterns are regular expressions; from a file only plain names are taken, which is what diffusers writes.
    """
    patterns = told.get("alpha_pattern") or {}
    odd = (
        [one for one in patterns if not re.fullmatch(r"[\w.]+", one)]
        if isinstance(patterns, dict)
        else [patterns]
    )
    if odd:
        raise AdapterError(
            f"the adapter's alpha_pattern has {odd[0]!r}; write the layers' names out"
        )
    of_pattern = (alpha for ending, alpha in patterns.items() if f".{layer}".endswith(f".{ending}"))
    alpha = next(of_pattern, told.get("lora_alpha", rank)) if own is None else own.tolist()
    if isinstance(alpha, list) and len(alpha) == 1:
        (alpha,) = alpha
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise AdapterError(f"the adapter's alpha of {layer} must be a number, got {alpha!r}")
    return float(alpha)


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
        if isinstance(module, nn.Linear)
        and name.split(".")[-1] in ("to_q", "to_k", "to_v", "0")
        and ".attn" in name
    }

"""Read and write adapters (LoRA): low-rank changes of a network's attention projections.

W' = W + scale * B A (Hu et al., 2021). A file is what diffusers writes and reads: safetensors,
`unet.<layer>.lora_A.weight` [r, in] and `unet.<layer>.lora_B.weight` [out, r], alpha = r.
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
"""Name that diffusers gives the file in a folder."""

_PEFT_FILE = "adapter_model.safetensors"
_PEFT_SETTINGS = "adapter_config.json"

_DOWN = (".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", "_lora.down.weight")
_UP = (".lora_B.weight", ".lora_B.default.weight", ".lora.up.weight", "_lora.up.weight")


@storable
@dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank change of a U-Net.

    Attributes:
        matrices: (layer, A [r, in], B [out, r]) each, float32, sorted by layer: a projection of
            the U-Net as diffusers names it. alpha / r is in B.
        file: Where it was loaded from; "" where it came from no file.

    Raises:
        AdapterError: If a layer stands there twice.
    """

    matrices: tuple[tuple[str, Tensor, Tensor], ...]
    file: str = ""

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.matrices]
        if len(set(names)) < len(names):
            raise AdapterError(
                f"the adapter changes {max(names, key=names.count)} more than once; "
                "keep one of them"
            )

    @cached_property
    def digest(self) -> str:
        return digest("adapter", self.matrices)

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max((len(down) for _, down, _ in self.matrices), default=0)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a `.safetensors` file that `Adapter.load` and diffusers read, whole or not at all.

        Raises:
            OutputError: Where the disk refuses.
        """
        target = writable(path, (".safetensors",))
        tensors = {}
        for layer, down, up in self.matrices:
            tensors[f"unet.{layer}.lora_A.weight"] = down.cpu().contiguous()
            tensors[f"unet.{layer}.lora_B.weight"] = up.cpu().contiguous()
        return write_whole(
            target, lambda partial: save_file(tensors, partial, metadata={"format": "pt"})
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Adapter":
        """Read a file, or the folder that diffusers or PEFT saved it in.

        Also with the older names `lora.down`, `lora.up` and `processor.to_q_lora`.

        Raises:
            AdapterError: For a file that is no adapter, or one that changes more than the U-Net's
                linear layers.
        """
        file = _file_in(Path(path))
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                names = opened.keys()
                tensors = {name: opened.get_tensor(name) for name in names}
                metadata = opened.metadata() or {}
        except (OSError, safetensors.SafetensorError) as failed:
            raise AdapterError(
                f"no adapter can be read from {str(file)!r} ({failed}); give a .safetensors file"
            ) from failed
        return cls(_matrices(file, tensors, _settings(file, metadata)), str(file))


@dataclass(frozen=True)
class AdapterUse:
    """An adapter in use.

    Attributes:
        adapter: None for the weights as they were loaded.
        scale: How much of it.

    Raises:
        ConfigError: For a scale that is no finite number.
    """

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
        """Digest and scale, for cache keys; None where nothing is changed."""
        if self.adapter is None or self.scale == 0:
            return None
        return self.adapter.digest, float(self.scale)

    def tag(self, model: Model) -> Model:
        """Return the model tagged with this adapter, so that its cache keys differ."""
        if self.key is None:
            return model
        return replace(model, how=(*model.how, f"adapter {self.key}"))


def _file_in(path: Path) -> Path:
    """Return the adapter's file in a folder: diffusers' or PEFT's; a file itself."""
    if not path.is_dir():
        return path
    if (path / _PEFT_FILE).exists() and not (path / FILE).exists():
        return path / _PEFT_FILE
    return path / FILE


def _settings(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read PEFT's settings of an adapter.

    diffusers writes them into the file's header, PEFT into a file beside it.
    """
    beside = file.with_name(_PEFT_SETTINGS)
    try:
        of_peft = beside.read_bytes() if file.name == _PEFT_FILE and beside.exists() else b"{}"
        settings = json.loads(metadata.get("lora_adapter_metadata", of_peft))
    except (OSError, ValueError) as wrong:
        raise AdapterError(
            f"the settings of {str(file)!r} cannot be read ({wrong}); save it again"
        ) from wrong
    if not isinstance(settings, dict):
        raise AdapterError(
            f"the settings of {str(file)!r} must be a JSON object, got {type(settings).__name__}"
        )
    return {name.removeprefix("unet."): value for name, value in settings.items()}


def _matrices(
    file: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> tuple[tuple[str, Tensor, Tensor], ...]:
    """Return (layer, A, B) of every layer, alpha / r in B. Raises AdapterError."""
    downs = _named(tensors, _DOWN)
    ups = _named(tensors, _UP)
    foreign = [
        name
        for name in tensors
        if name.startswith("text_encoder") or not name.endswith((*_DOWN, *_UP, ".alpha"))
    ]
    if not downs or downs.keys() != ups.keys() or foreign:
        unpaired = next(iter(downs.keys() ^ ups.keys()), "nothing")
        seen = foreign[0] if foreign else unpaired
        raise AdapterError(
            f"{str(file)!r} is not an adapter of a U-Net's linear layers: it has {seen!r}"
        )
    matrices = []
    for name in downs:
        down = downs[name].float()
        up = ups[name].float()
        if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1] or not len(down):
            raise AdapterError(
                f"{str(file)!r}: {name} has matrices {list(down.shape)} and {list(up.shape)}"
            )
        rank = len(down)
        alpha = _alpha(_layer(name), tensors.get(f"{name}.alpha"), settings, rank)
        up = up * (alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))
        if not (down.isfinite().all() and up.isfinite().all()):
            raise AdapterError(f"{str(file)!r}: {name} is not finite; its training has failed")
        matrices.append((_layer(name), down, up))
    return tuple(sorted(matrices, key=lambda entry: entry[0]))


def _alpha(layer: str, own: Tensor | None, settings: Mapping[str, Any], rank: int) -> float:
    """Return alpha of a layer.

    Its own tensor, else the first matching `alpha_pattern`, else `lora_alpha`, else the rank.
    PEFT's patterns are regular expressions; from a file only plain names are taken, which is what
    diffusers writes.
    """
    patterns = settings.get("alpha_pattern") or {}
    odd = [patterns]
    if isinstance(patterns, dict):
        odd = [pattern for pattern in patterns if not re.fullmatch(r"[\w.]+", pattern)]
    if odd:
        raise AdapterError(
            f"the adapter's alpha_pattern has {odd[0]!r}; write the layers' names out"
        )
    matching = (alpha for ending, alpha in patterns.items() if f".{layer}".endswith(f".{ending}"))
    alpha = next(matching, settings.get("lora_alpha", rank)) if own is None else own.tolist()
    if isinstance(alpha, list) and len(alpha) == 1:
        (alpha,) = alpha
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise AdapterError(f"the adapter's alpha of {layer} must be a number, got {alpha!r}")
    return float(alpha)


def _named(tensors: Mapping[str, Tensor], endings: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors whose names have one of the endings, by name without it."""
    return {
        name.removesuffix(ending): value
        for name, value in tensors.items()
        for ending in endings
        if name.endswith(ending)
    }


def _layer(name: str) -> str:
    """Return a layer's name as the U-Net has it, from any of the spellings."""
    layer = name.removeprefix("base_model.model.").removeprefix("unet.").replace(".processor.", ".")
    return f"{layer}.0" if layer.endswith("to_out") else layer


def projections(network: nn.Module) -> dict[str, nn.Linear]:
    """Return every projection of an attention by name: what an adapter of ours changes."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and name.split(".")[-1] in ("to_q", "to_k", "to_v", "0")
        and ".attn" in name
    }

"""Hold adapters (LoRA): low-rank changes of a network's linear layers.

W' = W + scale * B A (Hu et al., 2021).
"""

import math
import numbers
import os
import reprlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ...cache.digest import digest
from ...cache.structure import storable
from ...errors import AdapterError, ConfigError
from ...system.files import writable, write_whole
from ...system.incoming import shown
from ...system.numerics import own_numerics
from ..model import Model
from .file import FILE, file_bytes, read_adapter

__all__ = ["FILE", "Adapter", "AdapterUse", "projections"]


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
                f"the adapter changes {shown(max(names, key=names.count))} more than once; "
                "keep one of them"
            )

    @cached_property
    def digest(self) -> str:
        return digest("adapter", self.matrices)

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max((len(down) for _, down, _ in self.matrices), default=0)

    @cached_property
    def reaches(self) -> tuple[float, ...]:
        """No less than the largest number by which each layer's weights are changed, in order."""
        return tuple(_reach(down, up) for _, down, up in self.matrices)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a `.safetensors` file that `Adapter.load` and diffusers read, whole or not at all.

        It holds the digest of its own bytes: a damaged one is refused by `load`.

        Raises:
            OutputError: Where the disk refuses.
        """
        target = writable(path, (".safetensors",))
        raw = file_bytes(self.matrices)
        return write_whole(target, lambda partial: partial.write_bytes(raw))

    @classmethod
    @own_numerics()
    def load(cls, path: str | os.PathLike[str]) -> "Adapter":
        """Read a file, or the folder that diffusers or PEFT saved it in.

        A plain LoRA of the U-Net, in the spelling of diffusers, PEFT, kohya's scripts, or of
        files made from the original Stable Diffusion. What it changes in a text encoder is left
        out, with a warning.

        Raises:
            AdapterError: For a file that is damaged or no such adapter, with what it is.
        """
        if not isinstance(path, str | os.PathLike):
            raise AdapterError(
                f"an adapter must be an Adapter or the path of one, got {type(path).__name__}"
            )
        file, matrices = read_adapter(Path(path))
        return cls(matrices, str(file))


def _reach(down: Tensor, up: Tensor) -> float:
    """Return a bound of |B A|: of a product's entries by Cauchy and Schwarz; NaN for one of NaN."""
    rows = torch.linalg.vector_norm(up, dim=1, dtype=torch.float64)
    columns = torch.linalg.vector_norm(down, dim=0, dtype=torch.float64)
    return float(rows.max() * columns.max()) if rows.numel() and columns.numel() else 0.0


@dataclass(frozen=True)
class AdapterUse:
    """An adapter in use.

    Attributes:
        adapter: None for the weights as they were loaded.
        scale: How much of it.

    Raises:
        AdapterError: For what is no adapter.
        ConfigError: For a scale that is no finite number.
    """

    adapter: Adapter | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        given: object = self.adapter
        if given is not None and not isinstance(given, Adapter):
            kind = type(given).__name__
            raise AdapterError(f"an adapter cannot be a {kind}; read a file with Adapter.load")
        scale = _real(self.scale)
        if not math.isfinite(scale):
            raise ConfigError(
                f"an adapter's scale must be a finite number, got {reprlib.repr(self.scale)}"
            )
        object.__setattr__(self, "scale", scale)

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


def _real(number: object) -> float:
    """Return a number of any kind as a float; NaN for what is none, or too large for one."""
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        return math.nan
    try:
        return float(number)
    except OverflowError:
        return math.nan


def projections(network: nn.Module) -> dict[str, nn.Linear]:
    """Return every projection of an attention by name: what an adapter of ours changes."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and name.split(".")[-1] in ("to_q", "to_k", "to_v", "0")
        and ".attn" in name
    }

"""What an edit gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..inputs.image import Image
from ..inputs.points import Points
from ..methods import Scene
from ..stages import Optimum

__all__ = ["EditResult", "History", "Progress", "Record"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of how many) while the long stages work."""


@dataclass(frozen=True, eq=False)
class History:
    """The drag, iteration by iteration.

    losses: float32 [updates]. handles: float64 [iterations, N, 2], (x, y) image pixels, the first where they were put.
    """

    losses: npt.NDArray[np.float32]
    handles: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Record:
    """Every intermediate of an edit, kept only when asked for; tensors on the model's device.

    text [1, L, D], with guidance [2, L, D]; trajectory: the clean latent to the inverted one, float32 [1, 4, h, w] each; reference_features
    [1, C, h, w] and reference_noise [1, 4, h, w] of the first forward pass (None without one; the noise also where no mask term needs it);
    handles int64 [iterations, N, 2] and targets int64 [N, 2]: (row, column) at the supervision resolution; keep: 1 - mask, latent's size, or None;
    bottleneck_start and bottleneck, float32: before and after; final_latent float32; pixels float32 [1, 3, H, W] in -1..1 as decoded.
    scene and optimum are what the stage functions take, to go on from here.
    """

    text: Tensor
    trajectory: tuple[Tensor, ...]
    final_latent: Tensor
    pixels: Tensor
    scene: Scene
    optimum: Optimum

    @property
    def inverted(self) -> Tensor:
        return self.trajectory[-1]

    @property
    def bottleneck(self) -> Tensor:
        return self.optimum.variable

    @property
    def bottleneck_start(self) -> Tensor:
        return self.optimum.start

    @property
    def reference_features(self) -> Tensor | None:
        return None if self.optimum.reference is None else self.optimum.reference.features

    @property
    def reference_noise(self) -> Tensor | None:
        return None if self.optimum.reference is None else self.optimum.reference.noise

    @property
    def handles(self) -> Tensor:
        return self.optimum.handles

    @property
    def targets(self) -> Tensor:
        return self.scene.targets

    @property
    def keep(self) -> Tensor | None:
        return self.scene.keep


@dataclass(frozen=True, eq=False)
class EditResult:
    """image: the edited picture, in the input's size. points: where the handles ended, with their targets, image pixels.

    reached: every handle came within 2 supervision pixels of its target. timings_ms: by stage, and "total".
    timings_ms has the stages that ran: what was at hand is not among them.
    settings: what the edit ran with (method, model, device, precision, threads, configuration, base, backend and why no other). record: if asked for.
    cache: the numbers of the editor's store after this edit (hits, misses, bytes, evictions, saved milliseconds); empty without one.
    """

    image: Image
    points: Points
    reached: bool
    history: History
    timings_ms: Mapping[str, float]
    settings: Mapping[str, Any]
    record: Record | None
    cache: Mapping[str, Any] = field(default_factory=dict)

"""A pipeline: how an image gets to the place where it is dragged, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ..config import DragSettings
from ..diffusion.lora.adapter import AdapterUse
from ..drag.loop import Iteration, Optimum
from ..drag.method import AnyMethod, Start
from ..drag.scene import Scene
from ..inputs.frame import Frame
from ..inputs.mask import Mask
from ..inputs.points import Points
from ..run import Run
from .runtime import Runtime
from .source import Source

__all__ = ["Finished", "OnStep", "Pipeline", "Prepared", "Rounds"]

P = TypeVar("P")
Q = TypeVar("Q", bound=DragSettings)

OnStep = Callable[[int], None]
"""Called with the steps done; what it raises ends the work."""


@dataclass(frozen=True, eq=False)
class Prepared(Generic[P]):
    """A source as a method drags on it: everything before a point is known.

    Attributes:
        source: The picture.
        frame: Where its pixels and the model's maps lie.
        inversion: What inverting it gave, float32 tensors: for a diffusion model the trajectory,
            [1, 4, h, w] each, the clean latent first.
        place: Where the drag happens.
        start: What the method has before its first update.
        cells: (rows, columns) of the map that the mask holds in place.
        device: Where the tensors of a scene lie.
        dtype: What a drag reads its variable in.
        notices: What a person should know of it (a prompt that was cut).
    """

    source: Source
    frame: Frame
    inversion: tuple[Tensor, ...]
    place: P
    start: Start[Any]
    cells: tuple[int, int]
    device: torch.device
    dtype: torch.dtype
    notices: tuple[str, ...] = ()

    def scene(
        self,
        points: Points,
        mask: Mask | None,
        settings: Q,
        wants_output: bool = False,
        grip: Mask | None = None,
    ) -> Scene[P, Q]:
        """Return a drag on it; points, mask and grip are in the image's pixels."""
        handles, targets = self.frame.points(points)
        keep = None
        if mask is not None and settings.lam > 0:
            keep = 1 - self.frame.editable(mask, self.cells)
            keep = keep.to(self.device) if bool(keep.any()) else None
        return Scene(
            place=self.place,
            handles=handles.to(self.device),
            targets=targets.to(self.device),
            resolution=self.frame.supervision,
            keep=keep,
            settings=settings,
            wants_output=wants_output,
            ways=self.frame.ways(points).to(self.device),
            grip=None if grip is None else self.frame.touched(grip, self.cells).to(self.device),
        )


@dataclass(frozen=True, eq=False)
class Finished:
    """An edit's end.

    Attributes:
        latent: What the optimum became before it was decoded, float32.
        pixels: float32 [1, 3, H, W], nominally in -1..1.
        scene: The drag's scene, with what its end has read.
    """

    latent: Tensor
    pixels: Tensor
    scene: Scene[Any, Any]


class _Prepare(Protocol):
    def __call__(
        self,
        run: Run,
        model: Any,
        source: Source,
        method: AnyMethod,
        settings: Any,
        use: AdapterUse = ...,
        *,
        on_step: OnStep | None = None,
    ) -> Prepared[Any]: ...


class _Finish(Protocol):
    def __call__(
        self,
        run: Run,
        method: AnyMethod,
        scene: Scene[Any, Any],
        optimum: Optimum,
        *,
        on_step: OnStep | None = None,
        on_shown: OnStep | None = None,
    ) -> Finished: ...


@dataclass(frozen=True, eq=False)
class Rounds:
    """What a pipeline does for methods that denoise between their updates.

    Attributes:
        places: (what runs stages, a source prepared) -> its place and those of the next steps.
        step: (a place, an optimum there) -> that optimum one step on.
    """

    places: Callable[[Run, Prepared[Any]], tuple[Any, ...]]
    step: Callable[[Any, Tensor], Tensor]


class _Preview(Protocol):
    def __call__(
        self,
        run: Run,
        method: AnyMethod,
        scene: Scene[Any, Any],
        start: Start[Any],
        iteration: Iteration[Any],
        decoder: Any = None,
    ) -> Tensor: ...


class _Record(Protocol):
    def __call__(
        self, prepared: Prepared[Any], scene: Scene[Any, Any], optimum: Optimum, end: Finished
    ) -> Any: ...


class _Notice(Protocol):
    def __call__(
        self, run: Run, model: Any, source: Source, method: AnyMethod, settings: Any
    ) -> tuple[str, ...]: ...


def _loaded(runtime: Runtime) -> Any:
    return runtime.model


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A row of functions that a method names.

    Attributes:
        prepare: Everything before a point is known.
        finish: Everything after the drag.
        preview: Pixels float32 [1, 3, H, W] of what an iteration is expected to become.
        record: Every intermediate of an edit, for those who ask for it.
        notice: What a person should know of a picture before any work is done on it; None: nothing.
        rounds: For methods of several rounds; None: there are none.
    """

    name: str
    prepare: _Prepare
    finish: _Finish
    preview: _Preview
    record: _Record
    notice: _Notice | None = None
    rounds: Rounds | None = None
    model: Callable[[Runtime], Any] = _loaded

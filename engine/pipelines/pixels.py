"""An edit of the pixels themselves, by methods without a model.

    image -> (the drag) -> image

Nothing is encoded, inverted or decoded: a picture is its own place.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.lora.adapter import AdapterUse
from ..drag.loop import Iteration, Optimum
from ..drag.method import AnyMethod, Start
from ..drag.scene import Scene
from ..drag.start import start
from ..drag.warp import warp
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..inputs.mask import Mask
from ..inputs.points import Points
from ..run import Run
from .pipeline import Finished, OnStep, Pipeline, Prepared
from .record import Intermediates
from .source import Source

__all__ = ["PIXELS", "PixelFrame", "PixelPlace", "PixelRecord", "warped_image"]

NO_ADAPTER = AdapterUse()


@dataclass(frozen=True)
class PixelFrame(Frame):
    """The sizes of one edit, which are all the picture's: points live in its pixels."""

    @property
    def supervision(self) -> tuple[int, int]:
        """Size of the map in which points live: the picture's."""
        return self.padded


@dataclass(frozen=True, eq=False)
class PixelPlace:
    """A picture, where it is dragged.

    Attributes:
        pixels: float32 [1, 3, H, W] in -1..1.
    """

    pixels: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelRecord(Intermediates):
    """Every intermediate of an edit: there is its end alone.

    Attributes:
        frame: Where the picture's pixels lie.
    """

    frame: PixelFrame


def warped_image(
    image: Image, points: Points, mask: Mask | None, grip: Mask | None, radius: float, fit: str
) -> Image:
    """Return a picture with its pixels moved: at once, in whatever thread.

    Args:
        image: Nothing else is read of the source.
        points: Inside it, as mask and grip are of its size.
        mask: What may change; None: around the handles' ways.
        grip: What moves as one piece; None: a disc about each handle.
        radius: Of the discs, in pixels.
        fit: How several handles move one piece, one of `FITS`.
    """
    size = (image.height, image.width)
    handles, targets = PixelFrame(size, size).points(points)
    pixels = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None]
    moved = warp(pixels, handles, targets, _marked(mask), _marked(grip), radius=radius, fit=fit)
    return Image(moved[0].permute(1, 2, 0).contiguous().numpy())


def _marked(mask: Mask | None) -> Tensor | None:
    return None if mask is None else torch.from_numpy(mask.editable.copy())


def prepare(
    run: Run,
    model: Any,
    source: Source,
    method: AnyMethod,
    settings: Any,
    use: AdapterUse = NO_ADAPTER,
    *,
    on_step: OnStep | None = None,
) -> Prepared[PixelPlace]:
    """Return a picture as it is.

    Args:
        model: Of no meaning here.
        settings: Likewise: everything belongs to the drag.
        use: Likewise.
        on_step: Never called.
    """
    size = (source.image.height, source.image.width)
    frame = PixelFrame(size, size)
    pixels = run.once(PixelFrame.pixels, frame, source.image)
    place = run.once(PixelPlace, pixels)
    return Prepared(
        source=source,
        frame=frame,
        inversion=(pixels,),
        place=place,
        start=run.once(start, method, place),
        cells=size,
        device=pixels.device,
        dtype=torch.float32,
    )


def finish(
    run: Run,
    method: AnyMethod,
    scene: Scene[PixelPlace, Any],
    optimum: Optimum,
    *,
    on_step: OnStep | None = None,
    on_shown: OnStep | None = None,
) -> Finished:
    """Return what the drag made."""
    pixels = method.finish(scene, optimum.constants, optimum.variable)
    return Finished(optimum.variable, pixels, scene)


def _preview(
    run: Run,
    method: AnyMethod,
    scene: Scene[PixelPlace, Any],
    start: Start[Any],
    iteration: Iteration[Any],
    decoder: Any = None,
) -> Tensor:
    return method.preview(scene, start.constants, iteration.variable, iteration.forward)


def _record(
    prepared: Prepared[PixelPlace], scene: Scene[PixelPlace, Any], optimum: Optimum, end: Finished
) -> PixelRecord:
    assert isinstance(prepared.frame, PixelFrame)
    return PixelRecord(scene=end.scene, optimum=optimum, frame=prepared.frame)


PIXELS = Pipeline("pixels", prepare, finish, _preview, _record)

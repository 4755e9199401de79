"""Measure what a lower precision costs: losses, handles and pictures beside float32's.

Every drag is made in float32, then in every lower precision of the device in two ways: "rounded",
the network as it computes in that precision, and "anchored", as our drags run it (by the change
from the drag's start, `engine/diffusion/unet/anchored.py`). One model is in memory at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import torch

from dragnoise.engine import DragConfig, Editor, Image, Mask, Points
from dragnoise.engine.diffusion.place import Place
from dragnoise.engine.drag.method import AnyMethod, Start
from dragnoise.engine.methods.dragnoise import DRAGNOISE, EncoderHalf
from dragnoise.engine.session.result import EditResult

from ..report.record import number
from .models import model
from .pictures import unknown_pictures

__all__ = ["DRAGS", "LOWER", "Distance", "measure", "precision_table"]

LOWER: Mapping[str, tuple[str, ...]] = {"cpu": ("bfloat16",), "cuda": ("bfloat16", "float16")}
"""Precisions below float32, by type of device."""

DRAGS = {
    "checks": ((0.44, 0.44), (0.56, 0.44)),
    "waves": ((0.5, 0.4), (0.5, 0.6)),
    "rings": ((0.5, 0.5), (0.65, 0.6)),
    "face": ((0.5, 0.62), (0.4, 0.62)),
}
"""From where to where each picture is dragged, as shares of its sides."""


class Distance(TypedDict):
    """How far a drag is from float32's.

    Attributes:
        drag: The picture's name.
        dtype: The precision.
        way: "rounded" or "anchored".
        losses: The first losses.
        exact: Float32's.
        first_loss: Relative distance of the first loss with a mask term, iteration 1.
        largest_loss: The largest relative distance of a loss.
        handles_px: The farthest that a handle is from float32's, in any iteration.
        handles_differ_at: The first iteration in which one is elsewhere; None if none ever is.
        psnr_db: Of the picture; None for the same picture.
        drag_ms: The loop's time.
        exact_ms: Float32's.
    """

    drag: str
    dtype: str
    way: str
    losses: list[float]
    exact: list[float]
    first_loss: float
    largest_loss: float
    handles_px: float
    handles_differ_at: int | None
    psnr_db: float | None
    drag_ms: float
    exact_ms: float


@dataclass(frozen=True)
class _Drag:
    """A drag of a picture: one handle, the middle free to change."""

    name: str
    prompt: str
    image: Image

    def run(self, editor: Editor, method: AnyMethod, config: DragConfig) -> EditResult:
        height, width = self.image.height, self.image.width
        handle, target = ((round(x * width), round(y * height)) for x, y in DRAGS[self.name])
        free = np.zeros((height, width), np.bool_)
        free[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
        return editor.edit(
            self.image,
            Points.of([(handle, target)]),
            prompt=self.prompt,
            mask=Mask(free),
            config=config,
            method=method,
        )


def _start_rounded(place: Place) -> Start[EncoderHalf]:
    unet = place.model.unet
    down = unet.down(place.latent, place.step)
    return Start(EncoderHalf(down, unet.folded(down)), unet.middle(down).float())


_WAYS: Mapping[str, AnyMethod] = {
    "rounded": replace(DRAGNOISE, name="rounded", start=_start_rounded),
    "anchored": DRAGNOISE,
}


def measure(
    name: str,
    device: torch.device,
    side: int,
    changes: Mapping[str, Any],
    drags: Sequence[str] = tuple(DRAGS),
    *,
    watch: Callable[[str], object] = lambda what: None,
) -> dict[str, Any]:
    """Return the settings, and the distance of every drag, precision and way from float32.

    Args:
        name: Of the model, as `models.model` takes it.
        device: Where it runs.
        side: Of the pictures, in pixels.
        changes: To the model's own drag settings.
        drags: Names of the pictures.
        watch: Called with what is measured next.
    """
    pictures = [_Drag(*drawn) for drawn in unknown_pictures(side) if drawn[0] in drags]
    exact = dict(_results(name, device, "float32", pictures, changes, watch))
    distances = [
        _distance(drag, dtype, way, found, exact[drag, "anchored"])
        for dtype in LOWER[device.type]
        for (drag, way), found in _results(name, device, dtype, pictures, changes, watch)
    ]
    config = next(iter(exact.values())).settings["config"]
    return {"settings": config.to_dict(), "distances": distances}


def _results(
    name: str,
    device: torch.device,
    dtype: str,
    pictures: Sequence[_Drag],
    changes: Mapping[str, Any],
    watch: Callable[[str], object],
) -> Iterator[tuple[tuple[str, str], EditResult]]:
    """Yield ((drag, way), result); in float32 the two ways are one."""
    loaded = model(name, str(device), dtype)
    editor = Editor(loaded)
    config = loaded.defaults.replace(**changes)
    for drag in pictures:
        for way, method in _WAYS.items():
            if dtype != "float32" or way == "anchored":
                watch(f"{drag.name}, {dtype}, {way}")
                yield (drag.name, way), drag.run(editor, method, config)


def _distance(drag: str, dtype: str, way: str, found: EditResult, exact: EditResult) -> Distance:
    losses, right = (result.history.losses for result in (found, exact))
    both = min(len(losses), len(right))
    apart = np.abs(losses[:both] - right[:both]) / np.maximum(np.abs(right[:both]), 1e-6)
    steps = min(len(found.history.handles), len(exact.history.handles))
    moved = np.linalg.norm(found.history.handles[:steps] - exact.history.handles[:steps], axis=2)
    elsewhere = np.flatnonzero(moved.max(axis=1) > 0)
    return {
        "drag": drag,
        "dtype": dtype,
        "way": way,
        "losses": [_short(loss) for loss in losses[:4]],
        "exact": [_short(loss) for loss in right[:4]],
        "first_loss": _short(apart[1]) if both > 1 else 0.0,
        "largest_loss": _short(apart.max(initial=0)),
        "handles_px": _short(moved.max(initial=0)),
        "handles_differ_at": int(elsewhere[0]) if len(elsewhere) else None,
        "psnr_db": _psnr_db(found.image, exact.image),
        "drag_ms": _short(found.timings_ms["drag"]),
        "exact_ms": _short(exact.timings_ms["drag"]),
    }


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")


def _psnr_db(one: Image, other: Image) -> float | None:
    error = float(np.square(one.pixels.astype(float) - other.pixels.astype(float)).mean())
    return None if error == 0 else _short(10 * math.log10(255**2 / error))


def precision_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Return a record's table: a row a drag, precision and way."""
    head = ["drag", "precision", "way", "loss 1", "largest", "handles", "picture", "loop"]
    rows = [
        [
            row["drag"],
            row["dtype"],
            row["way"],
            f"{row['first_loss']:.1%}",
            f"{row['largest_loss']:.1%}",
            _handles(row),
            "equal" if row["psnr_db"] is None else f"{number(row['psnr_db'])} dB",
            f"{number(row['drag_ms'] / row['exact_ms'])} x float32",
        ]
        for row in document["distances"]
    ]
    return [head, *rows]


def _handles(row: Distance) -> str:
    if row["handles_differ_at"] is None:
        return "equal"
    return f"{number(row['handles_px'])} px, from {row['handles_differ_at']}"

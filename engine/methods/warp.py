"""Warp: move the picture's own pixels, without a model.

`drag/warp.py` does all of it when a drag aims: nothing is optimised. It draws nothing that was
hidden and nothing that follows; what is uncovered is painted smoothly.
"""

import dataclasses
from typing import Any, TypeAlias

from torch import Tensor

from ..config import WarpConfig
from ..drag.method import Method, Start
from ..drag.scene import Scene
from ..drag.warp import warp
from ..pipelines.pixels import PIXELS, PixelPlace

__all__ = ["WARP"]

_Scene: TypeAlias = Scene[PixelPlace, WarpConfig]


def _start(place: PixelPlace) -> Start[tuple[()]]:
    return Start((), place.pixels)


def _aim(
    scene: _Scene, still: Start[tuple[()]], inversion: tuple[Tensor, ...]
) -> tuple[_Scene, Start[tuple[()]]]:
    """Move the pixels; the handles are at their targets then."""
    moved = warp(
        scene.place.pixels,
        scene.handles,
        scene.targets,
        None if scene.keep is None else scene.keep[0, 0] == 0,
        scene.grip,
        radius=scene.settings.grip_px,
        fit=scene.settings.fit,
    )
    return dataclasses.replace(scene, handles=scene.targets), Start((), moved)


def _no_pass(*given: Any) -> Any:
    raise AssertionError("a warp has no iterations (WarpConfig), so no pass is made")


def _finish(scene: _Scene, constants: tuple[()], variable: Tensor) -> Tensor:
    return variable


WARP = Method(
    name="warp",
    source="no model: pixels moved by the field of `fast`, gaps filled harmonically",
    pipeline=PIXELS,
    settings=WarpConfig,
    start=_start,
    features=_no_pass,
    begin=_no_pass,
    follow=_no_pass,
    finished=_no_pass,
    supervise=_no_pass,
    finish=_finish,
    preview=_no_pass,
    exact=True,
    grips=True,
    aim=_aim,
)

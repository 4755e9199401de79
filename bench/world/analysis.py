"""Find what a picture shows of a drag, by drawing scenes until one looks like it.

Scenes between and beyond the drag's two ends are drawn first, then those beside the best, one
parameter after the other. Light, shadows and reflections are taken from either end, since an edit
may move a thing and leave them behind.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from . import scenes
from .drags import Drag, Selection, between, grown
from .painting import Pixels, render
from .scenes import Scene

ALPHAS = np.linspace(-0.5, 1.5, 41)

_STEPS = (4.0, 2.0, 1.0, 0.5)
_SMALL = {"stretch": 0.03, "tilt": 0.04}
"""How much a step of one pixel is of parameters that are not pixels."""


@dataclass(frozen=True)
class Finding:
    """What a picture shows of a drag.

    Attributes:
        completion: The share of the way: 0 is the source, 1 the goal, more is beyond it.
        distance_px: The mean distance from the landmarks to their targets.
        scene: The scene that looks most like the picture.
    """

    completion: float
    distance_px: float
    scene: Scene


def find(drag: Drag, picture: Pixels) -> Finding:
    """Find the scene that looks most like a picture, near the drag's way."""
    look = _Look(drag, picture)
    on_way = [(float(alpha), between(drag, float(alpha))) for alpha in ALPHAS]
    completion, scene = min(on_way, key=lambda row: look.error(row[1]))
    for step in _STEPS:
        scene = min(_beside(drag, scene, step), key=look.error)
    return Finding(completion, distance_px(drag, scene), scene)


def distance_px(drag: Drag, scene: Scene) -> float:
    """Return the mean distance of the dragged landmarks in a scene to their targets."""
    places = render(scene)[1]
    ways = zip(drag.landmarks, drag.targets, strict=True)
    return float(np.mean([math.dist(places[name], target) for name, target in ways]))


class _Look:
    """A picture that scenes are compared with, around the drag's change."""

    def __init__(self, drag: Drag, picture: Pixels) -> None:
        self._lights = (drag.scene, drag.goal)
        self._where: Selection = grown(drag.area, 9)
        self._seen = picture[self._where].astype(np.int16)

    def error(self, scene: Scene) -> float:
        """Return the mean difference of a scene under the better of two lights, 0..255."""
        return min(self._difference(render(scene, light=light)[0]) for light in self._lights)

    def _difference(self, drawn: Pixels) -> float:
        return float(np.abs(drawn[self._where].astype(np.int16) - self._seen).mean())


def _beside(drag: Drag, scene: Scene, step: float) -> Iterator[Scene]:
    """Yield the scene, and those with the dragged things a step or two further on."""
    yield scene
    for name in _parameters(drag):
        unit = name.split("_")[-1]
        least = 5.0 if unit in ("radius", "height") else -math.inf
        for times in (-2, -1, 1, 2):
            value = getattr(scene, name) + times * step * _SMALL.get(unit, 1.0)
            yield scenes.with_geometry(scene, {name: max(least, value)})


def _parameters(drag: Drag) -> Iterable[str]:
    """Return the parameters of the dragged things."""
    for name in scenes.geometry(drag.scene):
        if name.split("_")[0] in drag.things:
            yield name

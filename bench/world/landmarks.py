"""Find where a generated picture's landmarks are: the drawn mountain scene that is most like it.

What a generator makes comes with no positions. So scenes are drawn and compared (analysis by
synthesis): first the colours of sky and ground, then the places of each thing on a grid, then all
of them by smaller and smaller steps.
"""

import itertools
from collections.abc import Iterable

import numpy as np

from . import painting
from . import scenes as world
from .painting import Landmarks, Pixels
from .scenes import Land

RANGES = {
    "peak_x": (40, 88),
    "peak_height": (26, 66),
    "sun_x": (16, 112),
    "sun_y": (16, 52),
    "house_x": (20, 108),
}
"""Where things are in the scenes that the shipped generator was taught."""

CLEAR = 12.0
"""The largest mean difference (0..255) of a picture from a drawn scene whose landmarks are sure."""

_STEPS = (4.0, 2.0, 1.0, 0.5, 0.25)
_MIDDLE = Land("day", "green", "red", 64, 40, 30, 24, 96)


def find(picture: Pixels) -> tuple[Land, Landmarks, float]:
    """Return the scene that is most like a picture, its landmarks, and how unlike, 0..255."""
    colours = itertools.product(world.SKIES, world.GROUNDS)
    scene = _best(picture, (_changed(_MIDDLE, sky=s, ground=g) for s, g in colours))
    for _ in range(2):
        scene = _best(picture, _on_grid(scene, peak_x=7, peak_height=6))
        scene = _best(picture, _on_grid(scene, sun_x=13, sun_y=6))
        scene = _best(picture, _houses(scene))
    for step in _STEPS:
        for name in RANGES:
            scene = _best(picture, _beside(scene, name, step))
    return scene, painting.render(scene)[1], _difference(picture, scene)


def _changed(scene: Land, **changes: str | float) -> Land:
    return Land(**(vars(scene) | changes))


def _difference(picture: Pixels, scene: Land) -> float:
    drawn = painting.render(scene)[0].astype(np.int16)
    return float(np.abs(drawn - picture).mean())


def _best(picture: Pixels, scenes: Iterable[Land]) -> Land:
    return min(scenes, key=lambda scene: _difference(picture, scene))


def _on_grid(scene: Land, **counts: int) -> Iterable[Land]:
    """Yield the scene with two parameters on a grid over their ranges, and as it is."""
    yield scene
    values = [np.linspace(*RANGES[name], count) for name, count in counts.items()]
    for chosen in itertools.product(*values):
        yield _changed(scene, **dict(zip(counts, map(float, chosen), strict=True)))


def _houses(scene: Land) -> Iterable[Land]:
    """Yield the scene with its house in other places and colours."""
    for x in np.linspace(*RANGES["house_x"], 23):
        for roof in list(world.PAINTS)[:6]:
            yield _changed(scene, house_x=float(x), roof=roof)


def _beside(scene: Land, name: str, step: float) -> Iterable[Land]:
    """Yield the scene with one parameter a step or two to either side, and as it is."""
    yield scene
    low, high = RANGES[name]
    for times in (-2, -1, 1, 2):
        value = getattr(scene, name) + times * step
        if low - 12 <= value <= high + 12:
            yield _changed(scene, **{name: value})

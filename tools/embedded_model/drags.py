"""Make drags whose result is known, and measure how much of one a picture shows.

A drag leads from one scene to another that differs in the place or size of one object. What a
picture shows of it is found by drawing the scenes between and beyond the two (analysis by
synthesis).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from . import world
from .painting import Pixels, render
from .world import Air, Land, Point, Scene

Selection: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

KINDS = ("balloon", "boat", "sun", "house", "peak")
CHANGED = 10
MARGIN = 15
ALPHAS = np.linspace(-0.5, 1.5, 41)


@dataclass(frozen=True, eq=False)
class Drag:
    """A drag from `scene` to `goal`, which differ in the landmark `kind`.

    Attributes:
        kind: The landmark that is dragged, one of `KINDS`.
        scene: The scene before the drag.
        goal: The scene that a perfect drag leads to.
        handle: The landmark's (x, y) in `scene`, pixels.
        target: The landmark's (x, y) in `goal`, pixels.
        before: The picture of `scene`, uint8 [128, 128, 3].
        after: The picture of `goal`, uint8 [128, 128, 3].
        mask: bool [128, 128], true where the two pictures differ and around there.
    """

    kind: str
    scene: Scene
    goal: Scene
    handle: Point
    target: Point
    before: Pixels
    after: Pixels
    mask: Selection

    @property
    def caption(self) -> str:
        return world.caption(self.scene)

    @property
    def length_px(self) -> float:
        return math.dist(self.handle, self.target)


def _redrawn(scene: Scene, **changes: float) -> Scene:
    return world.with_geometry(scene, changes)


def _away(
    rng: np.random.Generator, value: float, centre: float, least: float, most: float
) -> float:
    """Move by `least` to `most` towards the centre, so that nothing leaves the picture."""
    return value + (-1 if value > centre else 1) * rng.uniform(least, most)


def _balloon(rng: np.random.Generator, sky: str) -> tuple[Scene, Scene]:
    air = world.draw_air(rng, sky)
    angle = rng.uniform(0, 2 * math.pi)
    length = rng.uniform(16, 28)
    x = air.balloon_x + length * math.cos(angle)
    y = air.balloon_y + length * math.sin(angle)
    return air, _redrawn(air, balloon_x=x, balloon_y=y)


def _boat(rng: np.random.Generator, sky: str) -> tuple[Scene, Scene]:
    sea = world.draw_sea(rng, sky)
    return sea, _redrawn(sea, boat_x=_away(rng, sea.boat_x, 64, 14, 26))


def _sun(rng: np.random.Generator, sky: str) -> tuple[Scene, Scene]:
    scene = (world.draw_sea if rng.random() < 0.5 else world.draw_land)(rng, sky)
    if rng.random() < 0.5:
        return scene, _redrawn(scene, sun_x=_away(rng, scene.sun_x, 64, 14, 26))
    return scene, _redrawn(
        scene, sun_x=_away(rng, scene.sun_x, 64, 10, 18), sun_y=_away(rng, scene.sun_y, 34, 8, 16)
    )


def _house(rng: np.random.Generator, sky: str) -> tuple[Scene, Scene]:
    land = world.draw_land(rng, sky)
    return land, _redrawn(land, house_x=_away(rng, land.house_x, 64, 14, 26))


def _peak(rng: np.random.Generator, sky: str) -> tuple[Scene, Scene]:
    land = world.draw_land(rng, sky)
    return land, _redrawn(land, peak_height=_away(rng, land.peak_height, 46, 14, 24))


_PAIRS: dict[str, Callable[[np.random.Generator, str], tuple[Scene, Scene]]] = {
    "balloon": _balloon, "boat": _boat, "sun": _sun, "house": _house, "peak": _peak,
}  # fmt: skip


def _inside(scene: Scene) -> bool:
    """Tell whether the world could have drawn the scene."""
    return all(
        low <= getattr(scene, name) <= high
        for name, (low, high) in world.RANGES[type(scene)].items()
    )


def _in_sight(scene: Scene, kind: str) -> bool:
    """Tell whether the landmark can be dragged: not a sun behind a mountain or a sail."""
    if kind != "sun":
        return True
    assert not isinstance(scene, Air)
    if isinstance(scene, Land):
        slope = 100 - scene.peak_height * (1 - abs(scene.sun_x - scene.peak_x) / 46)
        return scene.sun_y < slope - 12
    return (
        abs(scene.sun_x - scene.boat_x) > 0.6 * scene.boat_height + 8
        or scene.sun_y < 86 - scene.boat_height
    )


def ground_truth_drags(count: int, seed: int, kinds: tuple[str, ...] = KINDS) -> list[Drag]:
    """Draw `count` drags, the kinds one after the other.

    Seeds are not those of the shards, so no training saw these scenes.
    """
    rng = np.random.default_rng((seed, 681))
    drags = list[Drag]()
    while len(drags) < count:
        kind = kinds[len(drags) % len(kinds)]
        scene, goal = _PAIRS[kind](rng, str(rng.choice(list(world.SKIES))))
        if _inside(goal) and _in_sight(scene, kind) and _in_sight(goal, kind):
            drags.append(drag_between(kind, scene, goal))
    return drags


def drag_between(kind: str, scene: Scene, goal: Scene) -> Drag:
    """Return the drag of the landmark `kind` from one scene to the other."""
    before, here = render(scene)
    after, there = render(goal)
    changed = np.abs(before.astype(np.int16) - after).max(-1) > CHANGED
    return Drag(kind, scene, goal, here[kind], there[kind], before, after, grown(changed, MARGIN))


def grown(mask: Selection, width: int) -> Selection:
    """Widen the mask by half of `width` (pixels, odd) to every side."""
    white = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(white.filter(ImageFilter.MaxFilter(width))) > 0


def between(drag: Drag, alpha: float) -> Scene:
    """Return the scene at `alpha` of the way: 0 is the source, 1 the goal."""
    changes = dict[str, float]()
    for name in world.geometry(drag.scene):
        start = getattr(drag.scene, name)
        changes[name] = start + alpha * (getattr(drag.goal, name) - start)
    return _redrawn(drag.scene, **changes)


def completion(drag: Drag, picture: Pixels) -> tuple[float, float]:
    """Find the scene on the way that explains the picture best.

    Returns:
        The share of the way (0 is the source, 1 the goal), and the distance in pixels of its
        landmark to the target.
    """
    where = grown(drag.mask, 9)
    seen = picture.astype(np.float32)[where]
    errors = [np.abs(render(between(drag, alpha))[0][where] - seen).mean() for alpha in ALPHAS]
    alpha = float(ALPHAS[int(np.argmin(errors))])
    _, landmarks = render(between(drag, alpha))
    return alpha, math.dist(landmarks[drag.kind], drag.target)


def psnr(a: Pixels, b: Pixels, where: Selection | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, of all pixels or of those in a mask."""
    error = (a.astype(np.float32) - b) ** 2
    if where is not None:
        error = error[where]
    return 10 * math.log10(255**2 / max(1e-6, float(error.mean())))

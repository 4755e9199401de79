"""Drags whose result is known: two scenes that differ in one thing's place or size, what a user would do to get from one to the other,
and how much of it a given picture shows, found by drawing what lies between and beyond the two (analysis by synthesis).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from . import world
from .world import Air, Land, Pixels, Point, Scene

KINDS = ("balloon", "boat", "sun", "house", "peak")
CHANGED = 10
MARGIN = 15
ALPHAS = np.linspace(-0.5, 1.5, 41)


@dataclass(frozen=True, eq=False)
class Drag:
    """From `scene` to `goal`, which differ in the landmark `kind`; the pictures of both; mask: bool [128, 128], where they differ, and around."""

    kind: str
    scene: Scene
    goal: Scene
    handle: Point
    target: Point
    before: Pixels
    after: Pixels
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

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
    """A move by `least` to `most` that leads towards the centre rather than out of the picture."""
    return value + (-1 if value > centre else 1) * rng.uniform(least, most)


def _balloon(rng: np.random.Generator, sky: str) -> tuple[Scene, Scene]:
    air = world.draw_air(rng, sky)
    angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(16, 28)
    x, y = air.balloon_x + length * math.cos(angle), air.balloon_y + length * math.sin(angle)
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


_DRAWN: dict[str, Callable[[np.random.Generator, str], tuple[Scene, Scene]]] = {
    "balloon": _balloon, "boat": _boat, "sun": _sun, "house": _house, "peak": _peak,
}  # fmt: skip


def _inside(scene: Scene) -> bool:
    """Whether the scene is one that the world could have drawn."""
    return all(
        low <= getattr(scene, name) <= high
        for name, (low, high) in world.RANGES[type(scene)].items()
    )


def _in_sight(scene: Scene, kind: str) -> bool:
    """A sun that a mountain or a sail covers cannot be taken hold of."""
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
    """`count` drags, the kinds in turn. Other seeds than the shards' give scenes that no training saw."""
    rng, found = np.random.default_rng((seed, 681)), list[Drag]()
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        scene, goal = _DRAWN[kind](rng, str(rng.choice(list(world.SKIES))))
        if _inside(goal) and _in_sight(scene, kind) and _in_sight(goal, kind):
            found.append(drag_between(kind, scene, goal))
    return found


def drag_between(kind: str, scene: Scene, goal: Scene) -> Drag:
    (before, here), (after, there) = world.render(scene), world.render(goal)
    changed = np.abs(before.astype(np.int16) - after).max(-1) > CHANGED
    return Drag(kind, scene, goal, here[kind], there[kind], before, after, grown(changed, MARGIN))


def grown(
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], width: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The mask, widened by half of `width` (odd) to every side."""
    return (
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(width))
        )
        > 0
    )


def between(drag: Drag, alpha: float) -> Scene:
    """The scene at `alpha` of the way: 0 is the source, 1 the goal."""
    steps = {name: getattr(drag.scene, name) for name in world.geometry(drag.scene)}
    return _redrawn(
        drag.scene,
        **{
            name: value + alpha * (getattr(drag.goal, name) - value)
            for name, value in steps.items()
        },
    )


def completion(drag: Drag, picture: Pixels) -> tuple[float, float]:
    """The share of the way at which a drawn scene explains the picture best, and the landmark's distance to the target there in pixels."""
    where = grown(drag.mask, 9)
    seen = picture.astype(np.float32)[where]
    errors = [
        np.abs(world.render(between(drag, alpha))[0][where] - seen).mean() for alpha in ALPHAS
    ]
    alpha = float(ALPHAS[int(np.argmin(errors))])
    return alpha, math.dist(world.render(between(drag, alpha))[1][drag.kind], drag.target)


def psnr(
    a: Pixels, b: Pixels, where: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB, of all pixels or of those in a mask."""
    error = (a.astype(np.float32) - b) ** 2
    return 10 * math.log10(
        255**2 / max(1e-6, float((error if where is None else error[where]).mean()))
    )

"""Draw the scenes that the embedded model knows: a balloon, a sailing boat, a mountain.

A scene is a frozen dataclass. Its strings name colours; its floats are geometry in pixels of a
picture of 128 x 128. `partner` draws some of the geometry anew, so that a scene and its partner are
the two ends of a drag. `painting.render` paints a scene. Every object is rigid, middle-sized and
stands on a plain ground, because that is what a small model learns to move.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

SIZE = 128

Colour: TypeAlias = tuple[float, float, float]
Point: TypeAlias = tuple[float, float]

SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((92, 170, 232), (212, 237, 250)),
    "dawn": ((240, 168, 178), (253, 237, 208)),
    "sunset": ((108, 80, 160), (252, 176, 120)),
    "night": ((22, 28, 70), (78, 90, 152)),
}
PAINTS: dict[str, Colour] = {
    "red": (214, 62, 58),
    "orange": (240, 142, 54),
    "yellow": (246, 206, 74),
    "green": (64, 156, 98),
    "blue": (58, 112, 200),
    "purple": (132, 84, 178),
    "white": (248, 246, 240),
}
GROUNDS: dict[str, Colour] = {
    "green": (104, 172, 88),
    "golden": (218, 184, 88),
    "snowy": (232, 239, 246),
    "purple": (128, 108, 166),
}


@dataclasses.dataclass(frozen=True)
class Air:
    """A striped hot-air balloon over low hills."""

    sky: str
    ground: str
    first: str
    second: str
    balloon_x: float
    balloon_y: float
    balloon_radius: float


@dataclasses.dataclass(frozen=True)
class Sea:
    """A sailing boat under a sun, which is a moon at night."""

    sky: str
    hull: str
    sail: str
    boat_x: float
    boat_height: float
    sun_x: float
    sun_y: float


@dataclasses.dataclass(frozen=True)
class Land:
    """A snow-capped mountain, a sun and a small house on a hill."""

    sky: str
    ground: str
    roof: str
    peak_x: float
    peak_height: float
    sun_x: float
    sun_y: float
    house_x: float


Scene: TypeAlias = Air | Sea | Land

RANGES: dict[type[Scene], dict[str, tuple[float, float]]] = {
    Air: {"balloon_x": (26, 102), "balloon_y": (28, 68), "balloon_radius": (15, 21)},
    Sea: {"boat_x": (30, 98), "boat_height": (36, 54), "sun_x": (16, 112), "sun_y": (16, 58)},
    Land: {
        "peak_x": (40, 88),
        "peak_height": (26, 66),
        "sun_x": (16, 112),
        "sun_y": (16, 52),
        "house_x": (20, 108),
    },
}


def caption(scene: Scene) -> str:
    """Name the objects and their colours, never their places: no word may contradict a drag."""
    if isinstance(scene, Air):
        balloon = f"a {scene.first} and {scene.second} balloon"
        return f"{balloon} over {scene.ground} hills , {scene.sky} sky"
    light = "moon" if scene.sky == "night" else "sun"
    if isinstance(scene, Sea):
        return f"a {scene.hull} boat with a {scene.sail} sail at sea , {light} , {scene.sky} sky"
    house = f"a house with a {scene.roof} roof on a {scene.ground} hill"
    return f"a mountain , {house} , {light} , {scene.sky} sky"


def _random_geometry(rng: np.random.Generator, sort: type[Scene]) -> dict[str, float]:
    return {name: rng.uniform(*limits) for name, limits in RANGES[sort].items()}


def draw_air(rng: np.random.Generator, sky: str) -> Air:
    """Return a random `Air` under this sky."""
    first, second = rng.choice(list(PAINTS), 2, replace=False)
    return Air(
        sky, str(rng.choice(list(GROUNDS))), str(first), str(second), **_random_geometry(rng, Air)
    )


def draw_sea(rng: np.random.Generator, sky: str) -> Sea:
    """Return a random `Sea` under this sky."""
    hull, sail = rng.choice(list(PAINTS), 2, replace=False)
    return Sea(sky, str(hull), str(sail), **_random_geometry(rng, Sea))


def draw_land(rng: np.random.Generator, sky: str) -> Land:
    """Return a random `Land` under this sky."""
    ground = rng.choice(list(GROUNDS))
    roof = rng.choice(list(PAINTS)[:6])
    return Land(sky, str(ground), str(roof), **_random_geometry(rng, Land))


DRAW: dict[type[Scene], Callable[[np.random.Generator, str], Scene]] = {
    Air: draw_air,
    Sea: draw_sea,
    Land: draw_land,
}


def draw_scene(rng: np.random.Generator) -> Scene:
    """Return a random scene of a random sort."""
    sort = list(DRAW)[rng.integers(len(DRAW))]
    return DRAW[sort](rng, str(rng.choice(list(SKIES))))


def geometry(scene: Scene) -> tuple[str, ...]:
    """Return the names of the parameters that a drag may change."""
    return tuple(RANGES[type(scene)])


def with_geometry(scene: Scene, changes: Mapping[str, float]) -> Scene:
    """Return the scene with some of its geometry replaced."""
    return type(scene)(**(vars(scene) | dict(changes)))


def partner(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene with one to three of its geometric parameters drawn anew."""
    other = DRAW[type(scene)](rng, scene.sky)
    chosen = rng.choice(geometry(scene), rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]), replace=False)
    return with_geometry(scene, {str(name): getattr(other, name) for name in chosen})

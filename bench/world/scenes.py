"""Draw the scenes of the drawn world: a balloon, a sailing boat, a mountain with a house.

A scene is a frozen dataclass. Its strings name colours; its floats are geometry in pixels of a
picture of 128 x 128, and angles in radians. `partner` draws some of the geometry anew, so that a
scene and its partner are the two ends of a drag. `painting.render` paints a scene.

In a scene with `effects` what is dragged has consequences elsewhere: a glitter path under the sun,
reflections, cast shadows, a sky that follows the sun's height, a snow line that stays. Without them
every object stands for itself on a plain ground.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

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
    """A striped hot-air balloon over low hills; with effects also a sun and the balloon's shadow.

    Attributes:
        balloon_stretch: Height of the balloon, 1 as it is sewn.
        balloon_tilt: Radians, clockwise.
    """

    sky: str
    ground: str
    first: str
    second: str
    balloon_x: float
    balloon_y: float
    balloon_radius: float
    balloon_stretch: float = 1.0
    balloon_tilt: float = 0.0
    sun_x: float = 100.0
    sun_y: float = 24.0
    sun_radius: float = 10.0
    effects: bool = False


@dataclasses.dataclass(frozen=True)
class Sea:
    """A sailing boat under a sun, which is a moon at night.

    Attributes:
        boat_tilt: Radians that the boat heels, clockwise.
    """

    sky: str
    hull: str
    sail: str
    boat_x: float
    boat_height: float
    sun_x: float
    sun_y: float
    boat_tilt: float = 0.0
    sun_radius: float = 10.0
    effects: bool = False


@dataclasses.dataclass(frozen=True)
class Land:
    """A snow-capped mountain, a sun and a small house on a hill.

    Attributes:
        snow_y: With effects, the snow line: rock that stands higher is white.
    """

    sky: str
    ground: str
    roof: str
    peak_x: float
    peak_height: float
    sun_x: float
    sun_y: float
    house_x: float
    sun_radius: float = 10.0
    snow_y: float = 66.0
    effects: bool = False


Scene: TypeAlias = Air | Sea | Land
AnyScene = TypeVar("AnyScene", bound=Scene)

RANGES: dict[type[Scene], dict[str, tuple[float, float]]] = {
    Air: {
        "balloon_x": (26, 102),
        "balloon_y": (28, 68),
        "balloon_radius": (13, 21),
        "balloon_stretch": (0.85, 1.3),
        "balloon_tilt": (-0.45, 0.45),
        "sun_x": (14, 114),
        "sun_y": (14, 52),
        "sun_radius": (7, 13),
    },
    Sea: {
        "boat_x": (30, 98),
        "boat_height": (36, 54),
        "sun_x": (16, 112),
        "sun_y": (16, 64),
        "boat_tilt": (-0.35, 0.35),
        "sun_radius": (7, 14),
    },
    Land: {
        "peak_x": (40, 88),
        "peak_height": (26, 66),
        "sun_x": (16, 112),
        "sun_y": (16, 58),
        "house_x": (20, 108),
        "sun_radius": (7, 14),
        "snow_y": (50, 78),
    },
}

_USUAL = {
    "balloon_stretch": 1.0,
    "balloon_tilt": 0.0,
    "boat_tilt": 0.0,
    "sun_radius": 10.0,
}
"""Values that half of the drawn scenes have, and all without effects: balloons hang straight."""


def caption(scene: Scene) -> str:
    """Name the objects and their colours, never their places: no word may contradict a drag."""
    light = "moon" if scene.sky == "night" else "sun"
    if isinstance(scene, Air):
        balloon = f"a {scene.first} and {scene.second} balloon over {scene.ground} hills"
        lit = f" , {light}" if scene.effects else ""
        return f"{balloon}{lit} , {scene.sky} sky"
    if isinstance(scene, Sea):
        return f"a {scene.hull} boat with a {scene.sail} sail at sea , {light} , {scene.sky} sky"
    house = f"a house with a {scene.roof} roof on a {scene.ground} hill"
    return f"a mountain , {house} , {light} , {scene.sky} sky"


def _random_geometry(
    rng: np.random.Generator, sort: type[Scene], effects: bool = True
) -> dict[str, float]:
    drawn = {name: rng.uniform(*limits) for name, limits in RANGES[sort].items()}
    usual = {name: value for name, value in _USUAL.items() if name in drawn}
    share = 0.5 if effects else 1.0
    return drawn | {name: value for name, value in usual.items() if rng.random() < share}


def draw_air(rng: np.random.Generator, sky: str, effects: bool = True) -> Air:
    """Return a random `Air` under this sky."""
    first, second = rng.choice(list(PAINTS), 2, replace=False)
    ground = str(rng.choice(list(GROUNDS)))
    places = _random_geometry(rng, Air, effects)
    return Air(sky, ground, str(first), str(second), **places, effects=effects)


def draw_sea(rng: np.random.Generator, sky: str, effects: bool = True) -> Sea:
    """Return a random `Sea` under this sky."""
    hull, sail = rng.choice(list(PAINTS), 2, replace=False)
    places = _random_geometry(rng, Sea, effects)
    return Sea(sky, str(hull), str(sail), **places, effects=effects)


def draw_land(rng: np.random.Generator, sky: str, effects: bool = True) -> Land:
    """Return a random `Land` under this sky."""
    ground = str(rng.choice(list(GROUNDS)))
    roof = str(rng.choice(list(PAINTS)[:6]))
    places = _random_geometry(rng, Land, effects)
    return Land(sky, ground, roof, **places, effects=effects)


DRAW: dict[type[Scene], Callable[..., Scene]] = {
    Air: draw_air,
    Sea: draw_sea,
    Land: draw_land,
}


def draw_scene(rng: np.random.Generator) -> Scene:
    """Return a random scene of a random sort, with effects."""
    sort = list(DRAW)[rng.integers(len(DRAW))]
    return DRAW[sort](rng, str(rng.choice(list(SKIES))))


def geometry(scene: Scene) -> tuple[str, ...]:
    """Return the names of the parameters that a drag may change."""
    return tuple(RANGES[type(scene)])


def with_geometry(scene: AnyScene, changes: Mapping[str, float]) -> AnyScene:
    """Return the scene with some of its geometry replaced."""
    return dataclasses.replace(scene, **changes)  # type: ignore[arg-type]


def is_drawable(scene: Scene) -> bool:
    """Tell whether every parameter lies in its range."""
    ranges = RANGES[type(scene)]
    return all(low <= getattr(scene, name) <= high for name, (low, high) in ranges.items())


def partner(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene with one to three of its geometric parameters drawn anew."""
    other = _random_geometry(rng, type(scene))
    names = geometry(scene)
    weights = np.array([0.4 if name in (*_USUAL, "snow_y") else 1.0 for name in names])
    count = rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])
    chosen = rng.choice(names, count, replace=False, p=weights / weights.sum())
    return with_geometry(scene, {str(name): other[str(name)] for name in chosen})

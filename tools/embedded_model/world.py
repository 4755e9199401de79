"""The pictures that the embedded model knows: a balloon over hills, a sailing boat at sea, a mountain with a house.

A scene is a frozen dataclass whose strings name colours and whose floats are geometry in pixels of a 128 x 128 picture. `render` draws
it and returns where its landmarks are, exactly; `partner` draws anew some of its geometry, so that the two pictures are the two ends of a drag.
Every thing is rigid, middle-sized and stands on a plain ground: that is what a small model learns to move.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 128
SUPERSAMPLING = 4

Colour: TypeAlias = tuple[float, float, float]
Point: TypeAlias = tuple[float, float]
Pixels: TypeAlias = NDArray[np.uint8]

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
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


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


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return (
        a[0] + share * (b[0] - a[0]),
        a[1] + share * (b[1] - a[1]),
        a[2] + share * (b[2] - a[2]),
    )


def _darker(colour: Colour, share: float) -> Colour:
    return _mix(colour, BLACK, share)


def _lit(colour: Colour, sky: str) -> Colour:
    """What a thing of this colour looks like under this sky."""
    tint, share = {
        "day": (WHITE, 0.0),
        "dawn": ((250, 190, 180), 0.12),
        "sunset": ((150, 80, 120), 0.22),
        "night": ((20, 26, 70), 0.42),
    }[sky]
    return _mix(colour, tint, share)


class _Canvas:
    """Draws in picture coordinates on a picture four times as large; `pixels` reduces it, which smooths every edge."""

    def __init__(self, top: Colour, bottom: Colour) -> None:
        share = np.linspace(0, 1, SIZE * SUPERSAMPLING)[:, None, None]
        column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
        self._image = Image.fromarray(column.round().astype(np.uint8)).resize(
            (SIZE * SUPERSAMPLING,) * 2, Image.Resampling.NEAREST
        )
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon(
            [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points], fill=_rounded(colour)
        )

    def ellipse(self, x: float, y: float, a: float, b: float, colour: Colour) -> None:
        k = SUPERSAMPLING
        self._draw.ellipse(
            ((x - a) * k, (y - b) * k, (x + a) * k, (y + b) * k), fill=_rounded(colour)
        )

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        k = SUPERSAMPLING
        self._draw.line(
            [(x * k, y * k) for x, y in points], fill=_rounded(colour), width=round(width * k)
        )

    def pixels(self) -> Pixels:
        return np.asarray(self._image.reduce(SUPERSAMPLING))


def _rounded(colour: Colour) -> tuple[int, int, int]:
    return (round(colour[0]), round(colour[1]), round(colour[2]))


def _ground(canvas: _Canvas, colour: Colour, top: float, swing: float, phase: float) -> None:
    ridge = [(x, top + swing * math.sin(x / 24 + phase)) for x in range(-4, SIZE + 5, 4)]
    canvas.polygon([*ridge, (SIZE + 4, SIZE + 4), (-4, SIZE + 4)], colour)


def _sun(canvas: _Canvas, x: float, y: float, sky: str, radius: float = 10.0) -> None:
    colour = {
        "day": (255, 218, 96),
        "dawn": (255, 210, 110),
        "sunset": (255, 150, 84),
        "night": (250, 246, 222),
    }[sky]
    behind = _mix(*SKIES[sky], y / SIZE)
    for size, share in ((1.75, 0.18), (1.35, 0.38), (1.0, 1.0)):
        canvas.ellipse(x, y, radius * size, radius * size, _mix(behind, colour, share))


def _balloon(canvas: _Canvas, x: float, y: float, r: float, first: Colour, second: Colour) -> None:
    basket = y + 2.05 * r
    rope = _darker(second, 0.6)
    for side in (-1, 1):
        canvas.line(
            [(x + side * 0.42 * r, y + 1.1 * r), (x + side * 0.2 * r, basket - 0.2 * r)], rope, 0.9
        )
    for width, colour in ((1.0, first), (0.72, second), (0.4, first), (0.12, second)):
        shade = _darker(colour, 0.16 * (1 - width) if width < 1 else 0.08)
        bulb = [
            (x + width * r * math.cos(a), y - r * math.sin(a)) for a in np.linspace(0, math.pi, 25)
        ]
        neck = [
            (x - width * r * (1 - 0.62 * s**1.6), y + 1.3 * r * s) for s in np.linspace(0, 1, 9)
        ]
        canvas.polygon(bulb + neck + [(2 * x - px, py) for px, py in reversed(neck)], shade)
    wicker = (150, 100, 62)
    top, bottom = basket - 0.25 * r, basket + 0.22 * r
    canvas.polygon(
        [(x - 0.28 * r, top), (x + 0.28 * r, top), (x + 0.22 * r, bottom), (x - 0.22 * r, bottom)],
        wicker,
    )
    canvas.line(
        [(x - 0.3 * r, basket - 0.22 * r), (x + 0.3 * r, basket - 0.22 * r)],
        _darker(wicker, 0.4),
        1.4,
    )


def _boat(
    canvas: _Canvas, x: float, height: float, hull: Colour, sail: Colour, water: Colour
) -> None:
    deck, h = 98.0, height
    canvas.ellipse(x, deck + 0.25 * h, 0.52 * h, 0.07 * h, _darker(water, 0.22))
    canvas.line([(x, deck), (x, deck - h)], (96, 70, 54), 1.6)
    canvas.polygon(
        [
            (x + 0.04 * h, deck - h),
            (x + 0.04 * h, deck - 0.12 * h),
            (x + 0.52 * h, deck - 0.12 * h),
        ],
        sail,
    )
    canvas.polygon(
        [
            (x - 0.04 * h, deck - 0.86 * h),
            (x - 0.04 * h, deck - 0.12 * h),
            (x - 0.38 * h, deck - 0.12 * h),
        ],
        _darker(sail, 0.14),
    )
    canvas.polygon(
        [
            (x - 0.55 * h, deck),
            (x + 0.6 * h, deck),
            (x + 0.4 * h, deck + 0.24 * h),
            (x - 0.4 * h, deck + 0.24 * h),
        ],
        hull,
    )
    canvas.line(
        [(x - 0.55 * h, deck + 0.02 * h), (x + 0.6 * h, deck + 0.02 * h)],
        _mix(hull, WHITE, 0.55),
        1.8,
    )


def _mountain(
    canvas: _Canvas, x: float, height: float, rock: Colour, snow: Colour, base: float = 100.0
) -> None:
    top, w, cap = base - height, 46.0, 0.36
    canvas.polygon([(x - w, base), (x, top), (x + w, base)], rock)
    canvas.polygon(
        [(x, top), (x + 0.1 * w, top + 0.45 * height), (x - 0.06 * w, base), (x + w, base)],
        _darker(rock, 0.22),
    )
    dents = ((-1.0, 1.0), (-0.44, 0.72), (0.0, 1.12), (0.5, 0.74), (1.0, 1.0))
    zigzag = [(x + w * cap * side * down, top + height * cap * down) for side, down in dents]
    canvas.polygon([(x, top), *zigzag], snow)


def _house(
    canvas: _Canvas, x: float, roof: Colour, wall: Colour, foot: float = 115.0, s: float = 13.0
) -> None:
    canvas.box(x + 0.4 * s, foot - 2.1 * s, x + 0.75 * s, foot - s, _darker(wall, 0.4))
    canvas.box(x - s, foot - 1.1 * s, x + s, foot, wall)
    canvas.polygon(
        [(x - 1.3 * s, foot - 1.05 * s), (x, foot - 2.2 * s), (x + 1.3 * s, foot - 1.05 * s)], roof
    )
    canvas.box(x - 0.22 * s, foot - 0.72 * s, x + 0.22 * s, foot, (120, 78, 54))
    for side in (-0.62, 0.62):
        canvas.box(
            x + (side - 0.2) * s,
            foot - 0.78 * s,
            x + (side + 0.2) * s,
            foot - 0.38 * s,
            (250, 222, 140),
        )


def _render_air(scene: Air) -> tuple[_Canvas, dict[str, Point]]:
    canvas, sky = _Canvas(*SKIES[scene.sky]), scene.sky
    ground = _lit(GROUNDS[scene.ground], sky)
    _ground(canvas, _mix(ground, SKIES[sky][1], 0.35), 106, 4, 2.0)
    _ground(canvas, ground, 115, 3, 0.4)
    colours = _lit(PAINTS[scene.first], sky), _lit(PAINTS[scene.second], sky)
    _balloon(canvas, scene.balloon_x, scene.balloon_y, scene.balloon_radius, *colours)
    return canvas, {"balloon": (scene.balloon_x, scene.balloon_y)}


def _render_sea(scene: Sea) -> tuple[_Canvas, dict[str, Point]]:
    canvas, sky = _Canvas(*SKIES[scene.sky]), scene.sky
    _sun(canvas, scene.sun_x, scene.sun_y, sky)
    water = _lit((62, 132, 190), sky)
    far, near = _mix(water, SKIES[sky][1], 0.25), _darker(water, 0.2)
    for row in range(86, SIZE, 2):
        canvas.box(0, row, SIZE, SIZE, _mix(far, near, (row - 86) / 42))
    _boat(
        canvas,
        scene.boat_x,
        scene.boat_height,
        _lit(PAINTS[scene.hull], sky),
        _lit(PAINTS[scene.sail], sky),
        water,
    )
    return canvas, {
        "boat": (scene.boat_x, 98.0 - 0.3 * scene.boat_height),
        "sun": (scene.sun_x, scene.sun_y),
    }


def _render_land(scene: Land) -> tuple[_Canvas, dict[str, Point]]:
    canvas, sky = _Canvas(*SKIES[scene.sky]), scene.sky
    _sun(canvas, scene.sun_x, scene.sun_y, sky)
    _mountain(
        canvas,
        scene.peak_x,
        scene.peak_height,
        _lit((116, 116, 136), sky),
        _lit((250, 252, 255), sky),
    )
    _ground(canvas, _lit(GROUNDS[scene.ground], sky), 97, 2, 1.0)
    _house(canvas, scene.house_x, _lit(PAINTS[scene.roof], sky), _lit((246, 232, 208), sky))
    peak, house = (scene.peak_x, 100 - scene.peak_height), (scene.house_x, 101.0)
    return canvas, {"peak": peak, "sun": (scene.sun_x, scene.sun_y), "house": house}


def render(scene: Scene) -> tuple[Pixels, dict[str, Point]]:
    """The picture as [128, 128, 3] bytes, and where its landmarks are as (x, y)."""
    if isinstance(scene, Air):
        canvas, landmarks = _render_air(scene)
    elif isinstance(scene, Sea):
        canvas, landmarks = _render_sea(scene)
    else:
        canvas, landmarks = _render_land(scene)
    return canvas.pixels(), landmarks


def caption(scene: Scene) -> str:
    """What is there and in which colours; never where, so that no word contradicts a drag."""
    if isinstance(scene, Air):
        return f"a {scene.first} and {scene.second} balloon over {scene.ground} hills , {scene.sky} sky"
    light = "moon" if scene.sky == "night" else "sun"
    if isinstance(scene, Sea):
        return f"a {scene.hull} boat with a {scene.sail} sail at sea , {light} , {scene.sky} sky"
    return f"a mountain , a house with a {scene.roof} roof on a {scene.ground} hill , {light} , {scene.sky} sky"


def _drawn(rng: np.random.Generator, sort: type[Scene]) -> dict[str, float]:
    return {name: rng.uniform(*limits) for name, limits in RANGES[sort].items()}


def draw_air(rng: np.random.Generator, sky: str) -> Air:
    first, second = rng.choice(list(PAINTS), 2, replace=False)
    return Air(sky, str(rng.choice(list(GROUNDS))), str(first), str(second), **_drawn(rng, Air))


def draw_sea(rng: np.random.Generator, sky: str) -> Sea:
    hull, sail = rng.choice(list(PAINTS), 2, replace=False)
    return Sea(sky, str(hull), str(sail), **_drawn(rng, Sea))


def draw_land(rng: np.random.Generator, sky: str) -> Land:
    ground, roof = rng.choice(list(GROUNDS)), rng.choice(list(PAINTS)[:6])
    return Land(sky, str(ground), str(roof), **_drawn(rng, Land))


DRAW: dict[type[Scene], Callable[[np.random.Generator, str], Scene]] = {
    Air: draw_air,
    Sea: draw_sea,
    Land: draw_land,
}


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene of a random sort."""
    sort = list(DRAW)[rng.integers(len(DRAW))]
    return DRAW[sort](rng, str(rng.choice(list(SKIES))))


def geometry(scene: Scene) -> tuple[str, ...]:
    """The names of the parameters that a drag may change."""
    return tuple(RANGES[type(scene)])


def with_geometry(scene: Scene, changes: Mapping[str, float]) -> Scene:
    """The same scene with some of its geometry changed."""
    return type(scene)(**(vars(scene) | dict(changes)))


def partner(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same things in the same colours, with one to three geometric parameters drawn anew."""
    other, names = DRAW[type(scene)](rng, scene.sky), geometry(scene)
    chosen = rng.choice(names, rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]), replace=False)
    return with_geometry(scene, {str(name): getattr(other, name) for name in chosen})

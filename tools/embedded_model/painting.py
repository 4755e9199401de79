"""Paint scenes: four times as large, then reduced, which smooths every edge.

`render` returns the picture and the exact positions of its landmarks.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .world import GROUNDS, PAINTS, SIZE, SKIES, Air, Colour, Land, Point, Scene, Sea

SUPERSAMPLING = 4

Pixels: TypeAlias = NDArray[np.uint8]
Landmarks: TypeAlias = dict[str, Point]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
_LIGHT: dict[str, tuple[Colour, float]] = {
    "day": (WHITE, 0.0),
    "dawn": ((250, 190, 180), 0.12),
    "sunset": ((150, 80, 120), 0.22),
    "night": ((20, 26, 70), 0.42),
}
_SUNS: dict[str, Colour] = {
    "day": (255, 218, 96),
    "dawn": (255, 210, 110),
    "sunset": (255, 150, 84),
    "night": (250, 246, 222),
}
_DECK = 98.0
_FOOT = 115.0
_MOUNTAIN_BASE = 100.0
_MOUNTAIN_WIDTH = 46.0


def render(scene: Scene) -> tuple[Pixels, Landmarks]:
    """Paint a scene.

    Returns:
        The picture, uint8 [128, 128, 3], and the positions of its landmarks as (x, y) in pixels.
    """
    if isinstance(scene, Air):
        canvas, landmarks = _render_air(scene)
    elif isinstance(scene, Sea):
        canvas, landmarks = _render_sea(scene)
    else:
        canvas, landmarks = _render_land(scene)
    return canvas.pixels(), landmarks


class _Canvas:
    """A picture that is drawn on in its own coordinates, over a sky from `top` to `bottom`."""

    def __init__(self, top: Colour, bottom: Colour) -> None:
        side = SIZE * SUPERSAMPLING
        share = np.linspace(0, 1, side)[:, None, None]
        column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
        sky = Image.fromarray(column.round().astype(np.uint8))
        self._image = sky.resize((side, side), Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon(_enlarged(points), fill=_rounded(colour))

    def ellipse(self, x: float, y: float, a: float, b: float, colour: Colour) -> None:
        k = SUPERSAMPLING
        box = ((x - a) * k, (y - b) * k, (x + a) * k, (y + b) * k)
        self._draw.ellipse(box, fill=_rounded(colour))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        thickness = round(width * SUPERSAMPLING)
        self._draw.line(_enlarged(points), fill=_rounded(colour), width=thickness)

    def pixels(self) -> Pixels:
        return np.asarray(self._image.reduce(SUPERSAMPLING))


def _enlarged(points: Sequence[Point]) -> list[Point]:
    return [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]


def _rounded(colour: Colour) -> tuple[int, int, int]:
    return (round(colour[0]), round(colour[1]), round(colour[2]))


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return (
        a[0] + share * (b[0] - a[0]),
        a[1] + share * (b[1] - a[1]),
        a[2] + share * (b[2] - a[2]),
    )


def _darker(colour: Colour, share: float) -> Colour:
    return _mix(colour, BLACK, share)


def _lit(colour: Colour, sky: str) -> Colour:
    """Tint a colour by the light of a sky."""
    tint, share = _LIGHT[sky]
    return _mix(colour, tint, share)


def _render_air(scene: Air) -> tuple[_Canvas, Landmarks]:
    sky = scene.sky
    canvas = _Canvas(*SKIES[sky])
    ground = _lit(GROUNDS[scene.ground], sky)
    _ground(canvas, _mix(ground, SKIES[sky][1], 0.35), 106, 4, 2.0)
    _ground(canvas, ground, 115, 3, 0.4)
    x = scene.balloon_x
    y = scene.balloon_y
    colours = _lit(PAINTS[scene.first], sky), _lit(PAINTS[scene.second], sky)
    _balloon(canvas, x, y, scene.balloon_radius, *colours)
    return canvas, {"balloon": (x, y)}


def _render_sea(scene: Sea) -> tuple[_Canvas, Landmarks]:
    sky = scene.sky
    canvas = _Canvas(*SKIES[sky])
    _sun(canvas, scene.sun_x, scene.sun_y, sky)
    water = _lit((62, 132, 190), sky)
    far = _mix(water, SKIES[sky][1], 0.25)
    near = _darker(water, 0.2)
    for row in range(86, SIZE, 2):
        canvas.box(0, row, SIZE, SIZE, _mix(far, near, (row - 86) / 42))
    colours = _lit(PAINTS[scene.hull], sky), _lit(PAINTS[scene.sail], sky), water
    _boat(canvas, scene.boat_x, scene.boat_height, *colours)
    boat = (scene.boat_x, _DECK - 0.3 * scene.boat_height)
    return canvas, {"boat": boat, "sun": (scene.sun_x, scene.sun_y)}


def _render_land(scene: Land) -> tuple[_Canvas, Landmarks]:
    sky = scene.sky
    canvas = _Canvas(*SKIES[sky])
    _sun(canvas, scene.sun_x, scene.sun_y, sky)
    rock = _lit((116, 116, 136), sky)
    snow = _lit((250, 252, 255), sky)
    _mountain(canvas, scene.peak_x, scene.peak_height, rock, snow)
    _ground(canvas, _lit(GROUNDS[scene.ground], sky), 97, 2, 1.0)
    _house(canvas, scene.house_x, _lit(PAINTS[scene.roof], sky), _lit((246, 232, 208), sky))
    return canvas, {
        "peak": (scene.peak_x, _MOUNTAIN_BASE - scene.peak_height),
        "sun": (scene.sun_x, scene.sun_y),
        "house": (scene.house_x, 101.0),
    }


def _ground(canvas: _Canvas, colour: Colour, top: float, swing: float, phase: float) -> None:
    ridge = [(x, top + swing * math.sin(x / 24 + phase)) for x in range(-4, SIZE + 5, 4)]
    canvas.polygon([*ridge, (SIZE + 4, SIZE + 4), (-4, SIZE + 4)], colour)


def _sun(canvas: _Canvas, x: float, y: float, sky: str, radius: float = 10.0) -> None:
    behind = _mix(*SKIES[sky], y / SIZE)
    for size, share in ((1.75, 0.18), (1.35, 0.38), (1.0, 1.0)):
        canvas.ellipse(x, y, radius * size, radius * size, _mix(behind, _SUNS[sky], share))


def _balloon(canvas: _Canvas, x: float, y: float, r: float, first: Colour, second: Colour) -> None:
    basket = y + 2.05 * r
    rope = _darker(second, 0.6)
    for side in (-1, 1):
        ends = [(x + side * 0.42 * r, y + 1.1 * r), (x + side * 0.2 * r, basket - 0.2 * r)]
        canvas.line(ends, rope, 0.9)
    for width, colour in ((1.0, first), (0.72, second), (0.4, first), (0.12, second)):
        shade = _darker(colour, 0.16 * (1 - width) if width < 1 else 0.08)
        canvas.polygon(_envelope(x, y, r, width), shade)
    _basket(canvas, x, basket, r)


def _envelope(x: float, y: float, r: float, width: float) -> list[Point]:
    """Outline the balloon's envelope, `width` (0..1) of it: a bulb above, a neck below."""
    angles = np.linspace(0, math.pi, 25)
    bulb = [(x + width * r * math.cos(angle), y - r * math.sin(angle)) for angle in angles]
    downs = np.linspace(0, 1, 9)
    neck = [(x - width * r * (1 - 0.62 * down**1.6), y + 1.3 * r * down) for down in downs]
    return bulb + neck + [(2 * x - left, down) for left, down in reversed(neck)]


def _basket(canvas: _Canvas, x: float, y: float, r: float) -> None:
    wicker = (150, 100, 62)
    top = y - 0.25 * r
    bottom = y + 0.22 * r
    canvas.polygon(
        [(x - 0.28 * r, top), (x + 0.28 * r, top), (x + 0.22 * r, bottom), (x - 0.22 * r, bottom)],
        wicker,
    )
    rim = y - 0.22 * r
    canvas.line([(x - 0.3 * r, rim), (x + 0.3 * r, rim)], _darker(wicker, 0.4), 1.4)


def _boat(canvas: _Canvas, x: float, h: float, hull: Colour, sail: Colour, water: Colour) -> None:
    def at(across: float, up: float) -> Point:
        return (x + across * h, _DECK - up * h)

    canvas.ellipse(x, _DECK + 0.25 * h, 0.52 * h, 0.07 * h, _darker(water, 0.22))
    canvas.line([(x, _DECK), (x, _DECK - h)], (96, 70, 54), 1.6)
    canvas.polygon([at(0.04, 1), at(0.04, 0.12), at(0.52, 0.12)], sail)
    canvas.polygon([at(-0.04, 0.86), at(-0.04, 0.12), at(-0.38, 0.12)], _darker(sail, 0.14))
    canvas.polygon([at(-0.55, 0), at(0.6, 0), at(0.4, -0.24), at(-0.4, -0.24)], hull)
    canvas.line([at(-0.55, -0.02), at(0.6, -0.02)], _mix(hull, WHITE, 0.55), 1.8)


def _mountain(canvas: _Canvas, x: float, height: float, rock: Colour, snow: Colour) -> None:
    base = _MOUNTAIN_BASE
    width = _MOUNTAIN_WIDTH
    top = base - height
    cap = 0.36
    canvas.polygon([(x - width, base), (x, top), (x + width, base)], rock)
    fold = (x + 0.1 * width, top + 0.45 * height)
    shadow = [(x, top), fold, (x - 0.06 * width, base), (x + width, base)]
    canvas.polygon(shadow, _darker(rock, 0.22))
    dents = ((-1.0, 1.0), (-0.44, 0.72), (0.0, 1.12), (0.5, 0.74), (1.0, 1.0))
    zigzag = [(x + width * cap * side * down, top + height * cap * down) for side, down in dents]
    canvas.polygon([(x, top), *zigzag], snow)


def _house(canvas: _Canvas, x: float, roof: Colour, wall: Colour, s: float = 13.0) -> None:
    foot = _FOOT
    canvas.box(x + 0.4 * s, foot - 2.1 * s, x + 0.75 * s, foot - s, _darker(wall, 0.4))
    canvas.box(x - s, foot - 1.1 * s, x + s, foot, wall)
    eaves = foot - 1.05 * s
    canvas.polygon([(x - 1.3 * s, eaves), (x, foot - 2.2 * s), (x + 1.3 * s, eaves)], roof)
    canvas.box(x - 0.22 * s, foot - 0.72 * s, x + 0.22 * s, foot, (120, 78, 54))
    for side in (-0.62, 0.62):
        left = x + (side - 0.2) * s
        right = x + (side + 0.2) * s
        canvas.box(left, foot - 0.78 * s, right, foot - 0.38 * s, (250, 222, 140))

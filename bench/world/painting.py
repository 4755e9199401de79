"""Paint scenes: four times as large, then reduced, which smooths every edge.

`render` returns the picture and the exact positions of its landmarks. A thing (balloon, boat, sun,
house, peak) can be left out, which shows what it hides; its shadow, reflection and light stay.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .scenes import GROUNDS, PAINTS, SIZE, SKIES, Air, Colour, Land, Point, Scene, Sea

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
_LOW_SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((150, 178, 214), (255, 214, 150)),
    "dawn": ((196, 112, 150), (255, 184, 138)),
    "sunset": ((72, 48, 120), (232, 98, 84)),
    "night": ((16, 18, 44), (116, 92, 132)),
}
"""What the sky's colours are when the sun stands low."""

_ZENITH = 14.0
_DUSK = 66.0
_HORIZON = 86
_DECK = 98.0
_HULL = 0.24
"""Height of a hull beside that of its mast."""

_FOOT = 115.0
_MOUNTAIN_BASE = 100.0
_MOUNTAIN_WIDTH = 46.0


def render(
    scene: Scene, without: Sequence[str] = (), light: Scene | None = None
) -> tuple[Pixels, Landmarks]:
    """Paint a scene.

    Args:
        scene: What to paint.
        without: Things to leave out. Their shadows, reflections and light are painted.
        light: A scene of the same sort whose sky, shadows, reflections and glitter are painted, as
            after a drag that has moved a thing and nothing else; None: the scene's own.

    Returns:
        The picture, uint8 [128, 128, 3], and the positions of its landmarks as (x, y) in pixels.
    """
    light = scene if light is None else light
    if isinstance(scene, Air):
        assert isinstance(light, Air)
        canvas, landmarks = _render_air(scene, without, light)
    elif isinstance(scene, Sea):
        assert isinstance(light, Sea)
        canvas, landmarks = _render_sea(scene, without, light)
    else:
        assert isinstance(light, Land)
        canvas, landmarks = _render_land(scene, without, light)
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


def _lowness(scene: Scene) -> float:
    """Tell how low the sun stands: 0 high in the sky, 1 near the ground."""
    return min(1.0, max(0.0, (scene.sun_y - _ZENITH) / (_DUSK - _ZENITH)))


def _sky_of(scene: Scene) -> tuple[Colour, Colour]:
    """Return the colours at the top and at the bottom of the sky."""
    top, bottom = SKIES[scene.sky]
    if not scene.effects:
        return top, bottom
    low_top, low_bottom = _LOW_SKIES[scene.sky]
    share = 0.7 * _lowness(scene)
    return _mix(top, low_top, share), _mix(bottom, low_bottom, share)


def _cast(scene: Scene, x: float) -> float:
    """Return how far to the right of something at `x` its shadow falls."""
    fall = (x - scene.sun_x) * (0.12 + 0.4 * _lowness(scene))
    return min(34.0, max(-34.0, fall))


def _shaded(ground: Colour, sky: str) -> Colour:
    return _darker(ground, 0.2 if sky == "night" else 0.32)


def _render_air(scene: Air, without: Sequence[str], light: Air) -> tuple[_Canvas, Landmarks]:
    sky = scene.sky
    top, bottom = _sky_of(light)
    canvas = _Canvas(top, bottom)
    if scene.effects and "sun" not in without:
        _sun(canvas, scene, top, bottom)
    ground = _lit(GROUNDS[scene.ground], sky)
    _ground(canvas, _mix(ground, bottom, 0.35), 106, 4, 2.0)
    _ground(canvas, ground, 115, 3, 0.4)
    x = scene.balloon_x
    r = scene.balloon_radius
    if scene.effects:
        middle = light.balloon_x + _cast(light, light.balloon_x)
        size = light.balloon_radius
        canvas.ellipse(middle, 120, 0.9 * size, 0.24 * size, _shaded(ground, sky))
    place = _placed(x, scene.balloon_y, scene.balloon_tilt, scene.balloon_stretch)
    colours = _lit(PAINTS[scene.first], sky), _lit(PAINTS[scene.second], sky)
    if "balloon" not in without:
        _balloon(canvas, place, r, *colours)
    landmarks = {
        "balloon": (x, scene.balloon_y),
        "balloon_top": place(0, -r),
        "balloon_left": place(-0.9 * r, 0),
        "balloon_right": place(0.9 * r, 0),
        "balloon_basket": place(0, 2.05 * r),
    }
    return canvas, landmarks | (_sun_landmarks(scene) if scene.effects else {})


def _render_sea(scene: Sea, without: Sequence[str], light: Sea) -> tuple[_Canvas, Landmarks]:
    sky = scene.sky
    top, bottom = _sky_of(light)
    canvas = _Canvas(top, bottom)
    if "sun" not in without:
        _sun(canvas, scene, top, bottom)
    water = _lit((62, 132, 190), sky)
    far = _mix(water, bottom, 0.25)
    near = _darker(water, 0.2)
    for row in range(_HORIZON, SIZE, 2):
        canvas.box(0, row, SIZE, SIZE, _mix(far, near, (row - _HORIZON) / 42))
    if scene.effects:
        _glitter(canvas, light, water)
    h = scene.boat_height
    afloat = _DECK + _HULL * h
    place = _placed(scene.boat_x, afloat, scene.boat_tilt)
    mirror = _mirrored(_placed(light.boat_x, afloat, light.boat_tilt), afloat)
    colours = _lit(PAINTS[scene.hull], sky), _lit(PAINTS[scene.sail], sky)
    canvas.ellipse(light.boat_x, _DECK + 0.25 * h, 0.52 * h, 0.07 * h, _darker(water, 0.22))
    if scene.effects:
        dimmed = [_mix(colour, water, 0.5) for colour in colours]
        _boat(canvas, mirror, h, *dimmed)
    if "boat" not in without:
        _boat(canvas, place, h, *colours)
    landmarks = {
        "boat": place(0, -(0.3 + _HULL) * h),
        "mast": place(0, -(0.95 + _HULL) * h),
        "bow": place(0.48 * h, -0.14 * h),
        "stern": place(-0.44 * h, -0.14 * h),
    }
    return canvas, landmarks | _sun_landmarks(scene)


def _render_land(scene: Land, without: Sequence[str], light: Land) -> tuple[_Canvas, Landmarks]:
    sky = scene.sky
    top, bottom = _sky_of(light)
    canvas = _Canvas(top, bottom)
    if "sun" not in without:
        _sun(canvas, scene, top, bottom)
    rock = _lit((116, 116, 136), sky)
    snow = _lit((250, 252, 255), sky)
    if "peak" not in without:
        _mountain(canvas, scene, rock, snow)
    ground = _lit(GROUNDS[scene.ground], sky)
    _ground(canvas, ground, 97, 2, 1.0)
    x = scene.house_x
    if scene.effects:
        _house_shadow(canvas, light.house_x, _cast(light, light.house_x), _shaded(ground, sky))
    if "house" not in without:
        _house(canvas, x, _lit(PAINTS[scene.roof], sky), _lit((246, 232, 208), sky))
    landmarks = {
        "peak": (scene.peak_x, _MOUNTAIN_BASE - scene.peak_height),
        "house": (x, 101.0),
        "house_left": (x - 10.0, 110.0),
        "house_right": (x + 10.0, 110.0),
    }
    return canvas, landmarks | _sun_landmarks(scene)


def _sun_landmarks(scene: Scene) -> Landmarks:
    x = scene.sun_x
    return {
        "sun": (x, scene.sun_y),
        "sun_left": (x - 0.85 * scene.sun_radius, scene.sun_y),
        "sun_right": (x + 0.85 * scene.sun_radius, scene.sun_y),
    }


_Place: TypeAlias = Callable[[float, float], Point]
"""Maps a thing's own coordinates, from its middle, to the picture."""


def _placed(x: float, y: float, tilt: float, stretch: float = 1.0) -> _Place:
    cos = math.cos(tilt)
    sin = math.sin(tilt)

    def place(across: float, down: float) -> Point:
        down *= stretch
        return (x + across * cos - down * sin, y + across * sin + down * cos)

    return place


def _mirrored(place: _Place, water_y: float) -> _Place:
    """Return what the water shows of a place: upside down and a third as high."""

    def mirror(across: float, down: float) -> Point:
        x, y = place(across, down)
        return (x, water_y + 0.33 * (water_y - y))

    return mirror


def _glitter(canvas: _Canvas, scene: Sea, water: Colour) -> None:
    """Paint the sun's path on the water: dashes under the sun, wider towards the viewer."""
    for row in range(_HORIZON + 2, SIZE, 4):
        share = (row - _HORIZON) / (SIZE - _HORIZON)
        width = scene.sun_radius * (0.45 + 0.8 * share) * (0.75 + 0.25 * math.sin(1.7 * row))
        x = scene.sun_x + 1.6 * math.sin(2.3 * row)
        colour = _mix(water, _SUNS[scene.sky], 0.72 - 0.25 * share)
        canvas.box(x - width, row, x + width, row + 2.2, colour)


def _house_shadow(canvas: _Canvas, x: float, fall: float, colour: Colour, s: float = 13.0) -> None:
    top = _FOOT - 1.0
    tip = _FOOT + 9.0
    canvas.polygon([(x - s, top), (x + s, top), (x + s + fall, tip), (x - s + fall, tip)], colour)


def _ground(canvas: _Canvas, colour: Colour, top: float, swing: float, phase: float) -> None:
    ridge = [(x, top + swing * math.sin(x / 24 + phase)) for x in range(-4, SIZE + 5, 4)]
    canvas.polygon([*ridge, (SIZE + 4, SIZE + 4), (-4, SIZE + 4)], colour)


def _sun(canvas: _Canvas, scene: Scene, top: Colour, bottom: Colour) -> None:
    behind = _mix(top, bottom, scene.sun_y / SIZE)
    for size, share in ((1.75, 0.18), (1.35, 0.38), (1.0, 1.0)):
        radius = scene.sun_radius * size
        colour = _mix(behind, _SUNS[scene.sky], share)
        canvas.ellipse(scene.sun_x, scene.sun_y, radius, radius, colour)


def _balloon(canvas: _Canvas, place: _Place, r: float, first: Colour, second: Colour) -> None:
    rope = _darker(second, 0.6)
    for side in (-1, 1):
        canvas.line([place(side * 0.42 * r, 1.1 * r), place(side * 0.2 * r, 1.85 * r)], rope, 0.9)
    for width, colour in ((1.0, first), (0.72, second), (0.4, first), (0.12, second)):
        shade = _darker(colour, 0.16 * (1 - width) if width < 1 else 0.08)
        canvas.polygon([place(*point) for point in _envelope(r, width)], shade)
    _basket(canvas, place, r)


def _envelope(r: float, width: float) -> list[Point]:
    """Outline the balloon's envelope, `width` (0..1) of it: a bulb above, a neck below."""
    angles = np.linspace(0, math.pi, 25)
    bulb = [(width * r * math.cos(angle), -r * math.sin(angle)) for angle in angles]
    downs = np.linspace(0, 1, 9)
    neck = [(-width * r * (1 - 0.62 * down**1.6), 1.3 * r * down) for down in downs]
    return bulb + neck + [(-left, down) for left, down in reversed(neck)]


def _basket(canvas: _Canvas, place: _Place, r: float) -> None:
    wicker = (150, 100, 62)
    corners = ((-0.28, 1.8), (0.28, 1.8), (0.22, 2.27), (-0.22, 2.27))
    canvas.polygon([place(across * r, down * r) for across, down in corners], wicker)
    rim = 1.83 * r
    canvas.line([place(-0.3 * r, rim), place(0.3 * r, rim)], _darker(wicker, 0.4), 1.4)


def _boat(canvas: _Canvas, place: _Place, h: float, hull: Colour, sail: Colour) -> None:
    def at(across: float, up: float) -> Point:
        return place(across * h, -(up + _HULL) * h)

    canvas.line([at(0, 0), at(0, 1)], (96, 70, 54), 1.6)
    canvas.polygon([at(0.04, 1), at(0.04, 0.12), at(0.52, 0.12)], sail)
    canvas.polygon([at(-0.04, 0.86), at(-0.04, 0.12), at(-0.38, 0.12)], _darker(sail, 0.14))
    canvas.polygon([at(-0.55, 0), at(0.6, 0), at(0.4, -_HULL), at(-0.4, -_HULL)], hull)
    canvas.line([at(-0.55, -0.02), at(0.6, -0.02)], _mix(hull, WHITE, 0.55), 1.8)


def _mountain(canvas: _Canvas, scene: Land, rock: Colour, snow: Colour) -> None:
    x = scene.peak_x
    height = scene.peak_height
    base = _MOUNTAIN_BASE
    width = _MOUNTAIN_WIDTH
    top = base - height
    canvas.polygon([(x - width, base), (x, top), (x + width, base)], rock)
    fold = (x + 0.1 * width, top + 0.45 * height)
    shadow = [(x, top), fold, (x - 0.06 * width, base), (x + width, base)]
    canvas.polygon(shadow, _darker(rock, 0.22))
    depth = (scene.snow_y - top if scene.effects else 0.36 * height) / height
    if depth > 0:
        dents = ((-1.0, 1.0), (-0.44, 0.72), (0.0, 1.12), (0.5, 0.74), (1.0, 1.0))
        zigzag = [(x + width * depth * side * d, top + height * depth * d) for side, d in dents]
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

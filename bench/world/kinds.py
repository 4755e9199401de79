"""List the kinds of drag: what people drag, how far, by how many points, under which mask.

Each kind draws the scenes at the two ends of a drag, and names the landmarks it is dragged by.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np

from . import scenes
from .scenes import Air, AnyScene, Land, Scene, Sea

Random: TypeAlias = np.random.Generator
Ends: TypeAlias = tuple[Scene, Scene, tuple[str, ...]]
"""The scenes before and after, and the landmarks that are dragged."""


class Masking(Enum):
    """How the mask is drawn: around the change, loosely, not at all, missing a third."""

    TIGHT = "tight"
    LOOSE = "loose"
    NONE = "none"
    WRONG = "wrong"


class Prompting(Enum):
    """What the prompt says: what is there, nothing, something else."""

    RIGHT = "right"
    EMPTY = "empty"
    WRONG = "wrong"


def in_sight(scene: Scene, goal: Scene) -> bool:
    """Tell whether a sun that moves can be seen before and after."""
    moved = (scene.sun_x, scene.sun_y) != (goal.sun_x, goal.sun_y)
    return not moved or not (is_hidden(scene) or is_hidden(goal))


def _hides(scene: Scene, goal: Scene) -> bool:
    """Tell whether the sun is hidden at one end only."""
    return is_hidden(scene) != is_hidden(goal)


def is_hidden(scene: Scene) -> bool:
    """Tell whether the sun's middle or a good part of it lies behind something."""
    x = scene.sun_x
    y = scene.sun_y
    if isinstance(scene, Land):
        return y > 100 - scene.peak_height * (1 - abs(x - scene.peak_x) / 46) - 8
    if isinstance(scene, Sea):
        top = 100 - scene.boat_height
        return y > 74 or (abs(x - scene.boat_x) < 0.6 * scene.boat_height + 4 and y > top - 6)
    across = abs(x - scene.balloon_x) < scene.balloon_radius + 4
    return across and -scene.balloon_radius - 4 < y - scene.balloon_y < 2.3 * scene.balloon_radius


@dataclass(frozen=True)
class Kind:
    """A kind of drag.

    Attributes:
        summary: What it shows.
        draw: Draws its two scenes under a sky, and names its landmarks.
        is_fit: Tells whether two scenes may be used.
        masking: How its masks are drawn.
        prompting: What its prompts say.
        moves: Whether a thing as a whole moves, so that the distance tells most.
    """

    summary: str
    draw: Callable[[Random, str], Ends]
    is_fit: Callable[[Scene, Scene], bool] = in_sight
    masking: Masking = Masking.TIGHT
    prompting: Prompting = Prompting.RIGHT
    moves: bool = True


def _changed(scene: AnyScene, **changes: float) -> AnyScene:
    return scenes.with_geometry(scene, changes)


def _away(rng: Random, value: float, centre: float, least: float, most: float) -> float:
    """Move by `least` to `most` towards the centre, so that nothing leaves the picture."""
    return value + (-1 if value > centre else 1) * rng.uniform(least, most)


def _moved(rng: Random, scene: Scene, thing: str, least: float, most: float) -> Scene:
    """Move a thing by `least` to `most` pixels; the balloon and the sun in any direction."""
    if thing in ("boat", "house"):
        name = f"{thing}_x"
        return _changed(scene, **{name: _away(rng, getattr(scene, name), 64, least, most)})
    angle = rng.uniform(0, 2 * math.pi)
    length = rng.uniform(least, most)
    x = getattr(scene, f"{thing}_x") + length * math.cos(angle)
    y = getattr(scene, f"{thing}_y") + length * math.sin(angle)
    return _changed(scene, **{f"{thing}_x": x, f"{thing}_y": y})


_SORTS: Mapping[str, tuple[type[Scene], ...]] = {
    "balloon": (Air,), "boat": (Sea,), "sun": (Sea, Land), "house": (Land,), "peak": (Land,),
}  # fmt: skip


def _scene_with(rng: Random, sky: str, thing: str) -> Scene:
    sorts = _SORTS[thing]
    return scenes.DRAW[sorts[rng.integers(len(sorts))]](rng, sky)


def _move(thing: str, least: float = 14, most: float = 26) -> Callable[[Random, str], Ends]:
    """Return what draws a move of a thing by `least` to `most` pixels."""

    def draw(rng: Random, sky: str) -> Ends:
        scene = _scene_with(rng, sky, thing)
        return scene, _moved(rng, scene, thing, least, most), (thing,)

    return draw


def _any_move(least: float = 14, most: float = 26) -> Callable[[Random, str], Ends]:
    """Return what draws a move of any thing that moves."""

    def draw(rng: Random, sky: str) -> Ends:
        return _move(str(rng.choice(["balloon", "boat", "sun", "house"])), least, most)(rng, sky)

    return draw


def _draw_peak(rng: Random, sky: str) -> Ends:
    land = scenes.draw_land(rng, sky)
    return land, _changed(land, peak_height=_away(rng, land.peak_height, 46, 14, 24)), ("peak",)


def _draw_stretch(rng: Random, sky: str) -> Ends:
    """Pull a balloon's top and basket apart, or push them together."""
    short = rng.uniform(0.85, 0.98)
    long = rng.uniform(1.18, 1.3)
    ends = (short, long) if rng.random() < 0.5 else (long, short)
    air = scenes.draw_air(rng, sky)
    before, after = (
        _changed(
            air, balloon_stretch=end, balloon_tilt=0.0, balloon_radius=max(17, air.balloon_radius)
        )
        for end in ends
    )
    return before, after, ("balloon_top", "balloon_basket")


def _draw_balloon_turn(rng: Random, sky: str) -> Ends:
    air = _changed(scenes.draw_air(rng, sky), balloon_stretch=1.0)
    side = rng.choice([-1, 1])
    before = _changed(air, balloon_tilt=-side * rng.uniform(0, 0.2))
    after = _changed(air, balloon_tilt=side * rng.uniform(0.3, 0.45))
    return before, after, ("balloon_top", "balloon_basket")


def _draw_boat_turn(rng: Random, sky: str) -> Ends:
    sea = scenes.draw_sea(rng, sky)
    side = rng.choice([-1, 1])
    before = _changed(sea, boat_tilt=-side * rng.uniform(0, 0.15))
    return before, _changed(sea, boat_tilt=side * rng.uniform(0.2, 0.35)), ("mast",)


def _draw_sun_scale(rng: Random, sky: str) -> Ends:
    scene = _scene_with(rng, sky, "sun")
    ends = [rng.uniform(7, 8.5), rng.uniform(12.5, 14)]
    before, after = (_changed(scene, sun_radius=end) for end in rng.permutation(ends))
    return before, after, ("sun_left", "sun_right")


def _draw_balloon_scale(rng: Random, sky: str) -> Ends:
    air = _changed(scenes.draw_air(rng, sky), balloon_stretch=1.0, balloon_tilt=0.0)
    ends = [rng.uniform(13, 14.5), rng.uniform(19, 21)]
    before, after = (_changed(air, balloon_radius=end) for end in rng.permutation(ends))
    return before, after, ("balloon_left", "balloon_right")


def _draw_behind(rng: Random, sky: str) -> Ends:
    """Pull the sun out of the mountain, or push it behind."""
    land = scenes.draw_land(rng, sky)
    land = _changed(land, peak_height=max(50, land.peak_height))
    hidden = _changed(land, sun_x=land.peak_x + rng.uniform(-12, 12), sun_y=rng.uniform(46, 57))
    x = hidden.sun_x + rng.choice([-1, 1]) * rng.uniform(26, 38)
    seen = _changed(land, sun_x=x, sun_y=hidden.sun_y - rng.uniform(4, 20))
    # A handle must be seen: a sun that is pulled out still shows its edge beside the slope.
    peeping = _changed(hidden, sun_x=(hidden.sun_x + seen.sun_x) / 2)
    if rng.random() < 0.5:
        return peeping, seen, ("sun",)
    return seen, hidden, ("sun",)


def _draw_before(rng: Random, sky: str) -> Ends:
    """Drag the boat in front of a low sun, or away from it."""
    sea = scenes.draw_sea(rng, sky)
    low = _changed(sea, sun_x=rng.uniform(36, 92), sun_y=rng.uniform(54, 64))
    near = _changed(low, boat_x=low.sun_x + rng.uniform(-8, 8))
    far = _changed(near, boat_x=near.boat_x + rng.choice([-1, 1]) * rng.uniform(22, 34))
    ends = (near, far) if rng.random() < 0.5 else (far, near)
    return (*ends, ("boat",))


def _is_before(scene: Scene, goal: Scene) -> bool:
    return scenes.is_drawable(scene) and scenes.is_drawable(goal)


def _draw_opposite(rng: Random, sky: str) -> Ends:
    """Drag two things in opposite directions: sun and house, or sun and boat."""
    thing, draw = (("house", scenes.draw_land), ("boat", scenes.draw_sea))[rng.integers(2)]
    scene = draw(rng, sky)
    side = rng.choice([-1, 1])
    way = {"sun_x": side * rng.uniform(14, 26), f"{thing}_x": -side * rng.uniform(14, 26)}
    goal = _changed(scene, **{name: getattr(scene, name) + by for name, by in way.items()})
    return scene, goal, ("sun", thing)


def _crosses(scene: Scene, goal: Scene) -> bool:
    """Tell whether sun and boat change sides."""
    assert isinstance(scene, Sea)
    assert isinstance(goal, Sea)
    swapped = (scene.sun_x - scene.boat_x) * (goal.sun_x - goal.boat_x) < 0
    return swapped and in_sight(scene, goal)


def _draw_crossing(rng: Random, sky: str) -> Ends:
    """Drag sun and boat so that their ways cross."""
    sea = scenes.draw_sea(rng, sky)
    side = rng.choice([-1, 1])
    middle = rng.uniform(54, 74)
    half = rng.uniform(9, 15)
    scene = _changed(sea, sun_x=middle - side * half, boat_x=middle + side * half)
    scene = _changed(scene, sun_y=rng.uniform(16, 30))
    goal = _changed(scene, sun_x=middle + side * half, boat_x=middle - side * half)
    return scene, goal, ("sun", "boat")


_HANDLES = ("balloon", "balloon_top", "balloon_basket", "balloon_left", "balloon_right")


def _draw_many(rng: Random, sky: str) -> Ends:
    """Drag a balloon by three to five of its points."""
    scene, goal, _ = _move("balloon")(rng, sky)
    count = int(rng.integers(3, len(_HANDLES) + 1))
    return scene, goal, _HANDLES[:count]


def _draw_glitter(rng: Random, sky: str) -> Ends:
    """Drag the sun along the horizon: its path on the water follows."""
    sea = scenes.draw_sea(rng, sky)
    return sea, _changed(sea, sun_x=_away(rng, sea.sun_x, 64, 20, 36)), ("sun",)


def _draw_sky(rng: Random, sky: str) -> Ends:
    """Drag the sun up or down: the sky's colours follow."""
    scene = _scene_with(rng, sky, "sun")
    return scene, _changed(scene, sun_y=_away(rng, scene.sun_y, 38, 18, 32)), ("sun",)


def _draw_shadow(rng: Random, sky: str) -> Ends:
    """Drag the sun across: the shadow of house or balloon swings round."""
    scene = (scenes.draw_land if rng.random() < 0.5 else scenes.draw_air)(rng, sky)
    low = _changed(scene, sun_y=rng.uniform(30, 46))
    return low, _changed(low, sun_x=_away(rng, low.sun_x, 64, 24, 40)), ("sun",)


KINDS: Mapping[str, Kind] = {
    "balloon": Kind("a balloon moves, its shadow with it", _move("balloon")),
    "boat": Kind("a boat moves, its reflection with it", _move("boat")),
    "sun": Kind("a sun moves over sea or land", _move("sun")),
    "house": Kind("a house moves, its shadow with it", _move("house")),
    "peak": Kind("a mountain grows or sinks, the snow line stays", _draw_peak, moves=False),
    "short": Kind("a thing moves by 4 to 8 px", _any_move(4, 8)),
    "long": Kind("a thing moves by 28 to 40 px", _any_move(28, 40)),
    "stretch": Kind("a balloon is pulled by two points", _draw_stretch, moves=False),
    "balloon-turn": Kind("a balloon tilts", _draw_balloon_turn, moves=False),
    "boat-turn": Kind("a boat heels", _draw_boat_turn, moves=False),
    "sun-scale": Kind("a sun grows or shrinks", _draw_sun_scale, moves=False),
    "balloon-scale": Kind("a balloon grows or shrinks", _draw_balloon_scale, moves=False),
    "behind": Kind("the sun comes out of a mountain or goes behind it", _draw_behind, _hides),
    "before": Kind("a boat crosses a low sun", _draw_before, _is_before),
    "opposite": Kind("two things move in opposite directions", _draw_opposite),
    "crossing": Kind("the ways of sun and boat cross", _draw_crossing, _crosses),
    "many": Kind("three to five points on one balloon", _draw_many),
    "glitter": Kind("the sun moves along the sea, its glitter follows", _draw_glitter),
    "sky": Kind("the sun rises or sinks, the sky's colours follow", _draw_sky),
    "shadow": Kind("the sun crosses, a shadow swings round", _draw_shadow),
    "loose": Kind("a move under a loose mask", _any_move(), masking=Masking.LOOSE),
    "maskless": Kind("a move without a mask", _any_move(), masking=Masking.NONE),
    "wrong-mask": Kind("a move, the mask misses a third", _any_move(), masking=Masking.WRONG),
    "no-prompt": Kind("a move without a prompt", _any_move(), prompting=Prompting.EMPTY),
    "wrong-prompt": Kind("a move under a wrong prompt", _any_move(), prompting=Prompting.WRONG),
}

"""Make drags whose result is known: from one drawn scene to another.

A kind of drag is a way in which people drag: what moves, how far, by how many points, under which
mask and prompt. `drag(lot, kind, number)` draws one; the lots are for training, tuning and judging,
and never mix.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from . import scenes
from .kinds import KINDS, Masking, Prompting
from .painting import Pixels, render
from .scenes import Point, Scene

Selection: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

LOTS = {"training": 0, "tuning": 1, "judging": 2}
CHANGED = 10
"""What counts as a change of a pixel, of 255."""

MARGIN = 15
"""How much wider than the change a mask is, in pixels, both sides together."""

THINGS = ("balloon", "boat", "sun", "house", "peak")


@dataclass(frozen=True, eq=False)
class Drag:
    """A drag from one scene to another.

    Attributes:
        name: Its own in all lots, as `judging-boat-3`.
        kind: One of `KINDS`.
        scene: The scene before the drag.
        goal: The scene that a perfect drag leads to.
        landmarks: What is dragged by, names of the scenes' landmarks.
        handles: The landmarks' (x, y) in `scene`, pixels.
        targets: The landmarks' (x, y) in `goal`, pixels.
        before: The picture of `scene`, uint8 [128, 128, 3].
        after: The picture of `goal`, uint8 [128, 128, 3].
        mask: What the editor is told may change, bool [128, 128]; None: everything.
        prompt: What the editor is told that the picture shows.
    """

    name: str
    kind: str
    scene: Scene
    goal: Scene
    landmarks: tuple[str, ...]
    handles: tuple[Point, ...]
    targets: tuple[Point, ...]
    before: Pixels
    after: Pixels
    mask: Selection | None
    prompt: str

    @property
    def length_px(self) -> float:
        """The mean distance from handle to target."""
        ways = zip(self.handles, self.targets, strict=True)
        return float(np.mean([math.dist(handle, target) for handle, target in ways]))

    @cached_property
    def changed(self) -> Selection:
        """Where the two scenes differ, bool [128, 128]."""
        return _differing(render(self.scene)[0], render(self.goal)[0])

    @cached_property
    def area(self) -> Selection:
        """Where the two scenes differ and around there: the tightest honest mask."""
        return grown(self.changed, MARGIN)

    @property
    def allowed(self) -> Selection:
        """Where the editor may change the picture, bool [128, 128]."""
        return np.ones_like(self.changed) if self.mask is None else self.mask

    @cached_property
    def things(self) -> tuple[str, ...]:
        """What moves or changes its form."""
        return tuple(
            thing for thing in THINGS if _form(self.scene, thing) != _form(self.goal, thing)
        )

    @cached_property
    def body(self) -> Selection:
        """Where the dragged things stand in the source, bool [128, 128]."""
        return body_of(self.scene, self.things)

    @cached_property
    def arrived(self) -> Selection:
        """Where the dragged things stand in the goal, bool [128, 128]."""
        return body_of(self.goal, self.things)

    @cached_property
    def uncovered(self) -> Selection:
        """Where the things stood and no longer stand: what was hidden there must be drawn."""
        return self.body & ~self.arrived

    @cached_property
    def consequence(self) -> Selection:
        """Where the picture changes and no dragged thing stands, before or after.

        Shadows, reflections, glitter, the sky: no plain editor that moves the things changes it.
        """
        return self.changed & ~grown(self.body | self.arrived, 3)


def drag(lot: str, kind: str, number: int) -> Drag:
    """Draw a drag: of a lot in `LOTS`, a kind in `KINDS`, with a number from 0 on.

    Its random numbers are its own, so that any drag can be drawn without the others.
    """
    row = KINDS[kind]
    rng = np.random.default_rng((20265, LOTS[lot], *kind.encode(), number))
    while True:
        scene, goal, landmarks = row.draw(rng, str(rng.choice(list(scenes.SKIES))))
        if scenes.is_drawable(goal) and row.is_fit(scene, goal):
            break
    plain = drag_between(scene, goal, landmarks, f"{lot}-{kind}-{number}", kind)
    prompt = _PROMPTS[row.prompting](plain, rng)
    return dataclasses.replace(plain, mask=_MASKS[row.masking](plain, rng), prompt=prompt)


def drags(lot: str, kinds: Sequence[str], each: int) -> list[Drag]:
    """Draw drags of several kinds, the kinds one after the other."""
    return [drag(lot, kind, number) for number in range(each) for kind in kinds]


def drag_between(
    scene: Scene, goal: Scene, landmarks: tuple[str, ...], name: str = "", kind: str = ""
) -> Drag:
    """Return the drag of the landmarks from one scene to the other, with a tight mask."""
    before, here = render(scene)
    after, there = render(goal)
    plain = Drag(
        name=name,
        kind=kind,
        scene=scene,
        goal=goal,
        landmarks=landmarks,
        handles=tuple(here[landmark] for landmark in landmarks),
        targets=tuple(there[landmark] for landmark in landmarks),
        before=before,
        after=after,
        mask=None,
        prompt=scenes.caption(scene),
    )
    return dataclasses.replace(plain, mask=plain.area)


def grown(mask: Selection, width: int) -> Selection:
    """Widen the mask by half of `width` (pixels, odd) to every side."""
    white = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(white.filter(ImageFilter.MaxFilter(width))) > 0


def between(drag: Drag, alpha: float) -> Scene:
    """Return the scene at `alpha` of the way: 0 is the source, 1 the goal."""
    changes = dict[str, float]()
    for name in scenes.geometry(drag.scene):
        start = getattr(drag.scene, name)
        changes[name] = start + alpha * (getattr(drag.goal, name) - start)
    return scenes.with_geometry(drag.scene, changes)


def _differing(a: Pixels, b: Pixels) -> Selection:
    where: Selection = np.abs(a.astype(np.int16) - b).max(-1) > CHANGED
    return where


def _form(scene: Scene, thing: str) -> tuple[float, ...]:
    """Return the parameters of a thing: place, size and the like."""
    names = [name for name in scenes.geometry(scene) if name.startswith(f"{thing}_")]
    return tuple(getattr(scene, name) for name in names)


def body_of(scene: Scene, things: Sequence[str]) -> Selection:
    """Return where things stand in a scene and are not hidden."""
    return _differing(render(scene)[0], render(scene, things)[0])


# Masks and prompts.


def _loose(drag: Drag, rng: np.random.Generator) -> Selection:
    """Return the tight mask's box, twice as large."""
    rows, columns = np.nonzero(drag.area)
    mask = np.zeros_like(drag.area)
    top, bottom = _wider(rows)
    left, right = _wider(columns)
    mask[top:bottom, left:right] = True
    return mask


def _wider(places: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> tuple[int, int]:
    """Return the ends of a span that is longer by the root of two, within the picture."""
    low, high = int(places.min()), int(places.max()) + 1
    more = round((high - low) * (math.sqrt(2) - 1) / 2)
    return max(0, low - more), min(scenes.SIZE, high + more)


def _missing(drag: Drag, rng: np.random.Generator) -> Selection:
    """Return the tight mask without the left or right third of the thing where it stands."""
    columns = np.nonzero(drag.body.any(0))[0]
    low, high = int(columns.min()), int(columns.max()) + 1
    third = (high - low) / 3
    place = np.arange(scenes.SIZE)
    lost = place < low + third if rng.random() < 0.5 else place >= high - third
    return drag.area & ~(grown(drag.body, 3) & lost[None, :])


def _wrong(drag: Drag, rng: np.random.Generator) -> str:
    """Return the caption of a scene of another sort."""
    sorts = [sort for sort in scenes.DRAW if not isinstance(drag.scene, sort)]
    sort = sorts[rng.integers(len(sorts))]
    return scenes.caption(scenes.DRAW[sort](rng, str(rng.choice(list(scenes.SKIES)))))


_MASKS = {
    Masking.TIGHT: lambda drag, rng: drag.area,
    Masking.LOOSE: _loose,
    Masking.NONE: lambda drag, rng: None,
    Masking.WRONG: _missing,
}
_PROMPTS = {
    Prompting.RIGHT: lambda drag, rng: drag.prompt,
    Prompting.EMPTY: lambda drag, rng: "",
    Prompting.WRONG: _wrong,
}

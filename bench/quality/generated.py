"""Make drags on the pictures of a generator, which DragGAN edits without searching for them.

Nobody knows the true result. But the generator was taught drawn scenes, so that the scene that
looks most like a picture says where its things stand, before and after: one of them is dragged by
12 to 20 pixels, under the mask that fits the drawn scene. A picture that no scene is like is passed
over. Pictures are told apart by their seeds; no two drags, and so no two lots, have one in common.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dragnoise.engine import Editor
from dragnoise.engine.errors import ModelError
from dragnoise.engine.pipelines.styled import StyledPicture

from ..world import landmarks
from ..world.drags import LOTS, Drag, drag_between
from ..world.kinds import Random, in_sight
from ..world.scenes import SIZE, Land, is_drawable, with_geometry

__all__ = ["GENERATED", "TRUNCATION", "GeneratedDrag", "generated_drag", "seeds_of"]

GENERATED: Mapping[str, str] = {
    "generated-peak": "peak",
    "generated-sun": "sun",
    "generated-house": "house",
}
"""Kinds of drag by name, and the thing that is dragged."""

TRUNCATION = 0.7
"""How varied the pictures are: what `Editor.sample` takes."""

_FIRST_SEED = 2**32
"""Far from all seeds that the generator's training and its own judge look at."""

_TRIES = 32


@dataclass(frozen=True, eq=False)
class GeneratedDrag(Drag):
    """A drag on a generator's picture.

    `scene` is what looks most like the picture `before`, `goal` what it should look like then, and
    `after` the picture of that: it is drawn, and no truth to compare pixels with.

    Attributes:
        source: The picture with its style vectors.
    """

    source: StyledPicture


def generated_drag(editor: Editor, lot: str, kind: str, number: int) -> GeneratedDrag:
    """Return a drag on a picture that the editor's generator makes.

    Args:
        editor: With the generator.
        lot: One of `LOTS`.
        kind: One of `GENERATED`.
        number: From 0 on.

    Raises:
        ModelError: The generator does not know the drawn world.
    """
    rng = np.random.default_rng((20265, LOTS[lot], *kind.encode(), number))
    seeds = seeds_of(lot, kind, number)
    for seed in seeds:
        source = editor.sample(seed, truncation=TRUNCATION)
        if source.image.pixels.shape[:2] != (SIZE, SIZE):
            break
        scene, _, unlike = landmarks.find(source.image.pixels)
        goal = _moved(rng, scene, GENERATED[kind])
        if unlike <= landmarks.CLEAR and is_drawable(goal) and in_sight(scene, goal):
            drawn = drag_between(scene, goal, (GENERATED[kind],), f"{lot}-{kind}-{number}", kind)
            return _on(source, drawn)
    raise ModelError(
        f"no drawn scene of {SIZE} x {SIZE} is like the pictures of the generator with seeds from "
        f"{seeds[0]} on; take one that was taught the drawn world, as the embedded generator was"
    )


def seeds_of(lot: str, kind: str, number: int) -> Sequence[int]:
    """Return the seeds of the pictures that a drag may be on: its own among all drags."""
    place = (LOTS[lot] * len(GENERATED) + list(GENERATED).index(kind)) * 2**20 + number
    return range(_FIRST_SEED + place * _TRIES, _FIRST_SEED + (place + 1) * _TRIES)


def _on(source: StyledPicture, drawn: Drag) -> GeneratedDrag:
    """Return a drawn drag with another picture before it."""
    values = {field.name: getattr(drawn, field.name) for field in dataclasses.fields(drawn)}
    return GeneratedDrag(**values | {"before": source.image.pixels, "source": source})


def _moved(rng: Random, scene: Land, thing: str) -> Land:
    """Move a thing by about 12 to 20 pixels towards the middle of where it can be."""
    length = rng.uniform(12, 20)
    if thing == "sun":
        angle = rng.uniform(-0.6, 0.6)
        across = scene.sun_x + length * math.cos(angle) * (1 if scene.sun_x < 64 else -1)
        down = float(np.clip(scene.sun_y + length * math.sin(angle), *landmarks.RANGES["sun_y"]))
        return with_geometry(scene, {"sun_x": across, "sun_y": down})
    name = {"peak": "peak_height", "house": "house_x"}[thing]
    value = getattr(scene, name)
    middle = sum(landmarks.RANGES[name]) / 2
    return with_geometry(scene, {name: value + (length if value < middle else -length)})

"""Judge drags on a generator's own pictures: where a landmark was, should be, and came to be.

A landmark is found in the picture before and in the picture after, each without looking at the
other (`bench/world/landmarks.py`). Seeds begin where no sheet of the training looks.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from dragnoise.bench.world import landmarks
from dragnoise.bench.world.landmarks import CLEAR
from dragnoise.bench.world.painting import Landmarks
from dragnoise.bench.world.scenes import Point
from dragnoise.engine import Editor, EditResult, Image
from dragnoise.engine.cli.drawing import enlarge, sheet, with_points
from dragnoise.engine.config import DragGANConfig
from dragnoise.engine.inputs.points import Points

KINDS = ("peak", "sun", "house")
FIRST_SEED = 1_000_000


@dataclass(frozen=True, eq=False)
class Drag:
    """A drag of a landmark on a generator's own picture.

    Attributes:
        kind: The landmark, one of `KINDS`.
        seed: Of the picture.
        places: Where its landmarks are, (x, y) in pixels.
        target: Where this one shall be.
    """

    kind: str
    seed: int
    places: Landmarks
    target: Point

    @property
    def points(self) -> Points:
        return Points((self.places[self.kind],), (self.target,))


@dataclass(frozen=True, eq=False)
class Trial:
    """A drag that was done, and what came of it.

    Attributes:
        drag: What was asked for.
        before: The picture.
        result: The edit.
        start_px: The landmark's distance to its target before.
        end_px: And after.
        others_px: How far the other landmarks moved, on average.
        unclear: The mean difference of the edited picture from a drawn scene, 0..255.
    """

    drag: Drag
    before: Image
    result: EditResult
    start_px: float
    end_px: float
    others_px: float
    unclear: float


def drags(editor: Editor, count: int, seed: int, truncation: float) -> Iterator[tuple[Drag, int]]:
    """Yield drags, the kinds in turn, each with the number of pictures that were passed over.

    Passed over is a picture that no drawn scene is like (`CLEAR`), or whose sun is hidden.
    """
    rng = np.random.default_rng((seed, 909))
    number, passed = FIRST_SEED + 1000 * seed, 0
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        while True:
            picture = editor.sample(number, truncation=truncation).image.pixels
            _, places, unclear = landmarks.find(picture)
            number += 1
            if unclear <= CLEAR and (kind != "sun" or _in_sight(places)):
                break
            passed += 1
        yield Drag(kind, number - 1, places, _target(rng, kind, places[kind])), passed


def _in_sight(places: Landmarks) -> bool:
    """Tell whether the sun stands beside or above the mountain."""
    (sun_x, sun_y), (peak_x, peak_y) = places["sun"], places["peak"]
    slope = peak_y + (100 - peak_y) * abs(sun_x - peak_x) / 46
    return sun_y < slope - 12


def _target(rng: np.random.Generator, kind: str, place: Point) -> Point:
    """Move a landmark by 12 to 20 pixels towards the middle of where it can be."""
    x, y = place
    length = rng.uniform(12, 20)
    if kind == "peak":
        return x, y + (length if y < 54 else -length)
    if kind == "house":
        return x + (length if x < 64 else -length), y
    angle = rng.uniform(-0.6, 0.6)
    across = length * math.cos(angle) * (1 if x < 64 else -1)
    return x + across, float(np.clip(y + length * math.sin(angle), 16, 52))


def tried(editor: Editor, drag: Drag, config: DragGANConfig, truncation: float) -> Trial:
    """Do a drag and look for the landmarks in what came of it."""
    picture = editor.sample(drag.seed, truncation=truncation)
    result = editor.edit(picture, drag.points, method="draggan", config=config)
    _, places, unclear = landmarks.find(result.image.pixels)
    others = [kind for kind in KINDS if kind != drag.kind]
    return Trial(
        drag=drag,
        before=picture.image,
        result=result,
        start_px=math.dist(drag.places[drag.kind], drag.target),
        end_px=math.dist(places[drag.kind], drag.target),
        others_px=mean(math.dist(places[kind], drag.places[kind]) for kind in others),
        unclear=unclear,
    )


def summary(trials: Sequence[Trial], passed: int) -> str:
    """Return a table of trials in Markdown, then one JSON document of their means."""
    head = "| drag | seed | start_px | end_px | others_px | iterations | reached | unclear |"
    lines = [head, "|" + "---|" * 8]
    for trial in trials:
        iterations = len(trial.result.history.losses)
        figures = f"{trial.start_px:.1f} | {trial.end_px:.1f} | {trial.others_px:.1f}"
        reached = "yes" if trial.result.reached else "no"
        lines.append(
            f"| {trial.drag.kind} | {trial.drag.seed} | {figures} | {iterations} | {reached} | "
            f"{trial.unclear:.1f} |"
        )
    means = {
        name: round(mean(getattr(trial, name) for trial in trials), 2)
        for name in ("start_px", "end_px", "others_px", "unclear")
    }
    means["nearer"] = sum(trial.end_px < trial.start_px for trial in trials)
    means["halved"] = sum(trial.end_px < trial.start_px / 2 for trial in trials)
    means |= {"drags": len(trials), "passed_over": passed}
    return "\n".join([*lines, json.dumps(means)])


def picture_of(trials: Sequence[Trial]) -> Image:
    """Draw every trial as a column: the picture, its points, the edit."""
    columns = [
        (
            enlarge(trial.before),
            with_points(trial.before, trial.drag.points),
            enlarge(trial.result.image),
        )
        for trial in trials
    ]
    names = [f"{trial.drag.kind} {trial.start_px:.0f} > {trial.end_px:.0f}" for trial in trials]
    return sheet(columns, names, ("before", "points", "after"))


def judge(
    editor: Editor,
    count: int,
    seed: int,
    config: DragGANConfig,
    truncation: float,
    report: Callable[[str], None],
) -> tuple[list[Trial], int]:
    """Do `count` drags; return them, and how many pictures were passed over."""
    trials, over = list[Trial](), 0
    for drag, passed in drags(editor, count, seed, truncation):
        over = passed
        trial = tried(editor, drag, config, truncation)
        trials.append(trial)
        report(f"{drag.kind} {drag.seed}: {trial.start_px:.1f} px before, {trial.end_px:.1f} after")
    return trials, over

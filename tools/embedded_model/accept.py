"""Judge whether a model is good enough to show DragNoise on.

Held-out drags are edited, and beside each edit stand controls that must not move anything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
from torch import Tensor

from dragnoise.bench.fidelity.pixels import psnr
from dragnoise.bench.quality.scores import score
from dragnoise.bench.quality.trial import Trial, decoded, encoded, goal_bottleneck
from dragnoise.bench.world.analysis import find
from dragnoise.bench.world.drags import Drag, drags, grown
from dragnoise.bench.world.kinds import KINDS
from dragnoise.bench.world.painting import Pixels
from dragnoise.engine import DragConfig, Editor

LOT = "judging"
TUNING_LOT = "tuning"
TUNED = ("balloon", "boat", "sun", "house", "peak", "balloon-turn", "glitter", "long")
"""The kinds that settings are tuned on."""

CONTROLS = ("constant", "random", "another's")


@dataclass(frozen=True)
class Row:
    """A drag's figures.

    Attributes:
        kind: The landmark that was dragged.
        leverage: How far the goal's own bottleneck moves the predicted picture, 0..1.
        completion: The share of the way that the edit went, 0..1.
        start_px: The distance from handle to target before the edit.
        end_px: The distance from landmark to target after it.
        outside_db: PSNR against the reconstruction, outside of the mask.
        gain_db: How much nearer to the goal the edit is than no edit, inside the mask.
        sharpness: The edit's gradients beside the goal's, inside the mask; 1 is as sharp.
        rebuilt_db: PSNR of the reconstruction without a drag.
        vae_db: PSNR of the picture encoded and decoded.
        iterations: Iterations of the drag.
        reached: Whether every handle arrived.
        oracle: Completion with the goal's own bottleneck.
        controls: Completion with each control's bottleneck, in the order of `CONTROLS`.
    """

    kind: str
    leverage: float
    completion: float
    start_px: float
    end_px: float
    outside_db: float
    gain_db: float
    sharpness: float
    rebuilt_db: float
    vae_db: float
    iterations: int
    reached: bool
    oracle: float
    controls: tuple[float, float, float]


class Verdict(TypedDict):
    """A judgement of a model, ready for JSON.

    Attributes:
        drags: How many drags were judged.
        means: The mean figures by kind, and of all.
        wanted: For each requirement whether it is met.
        accepted: Whether all are.
    """

    drags: int
    means: dict[str, dict[str, float]]
    wanted: dict[str, bool]
    accepted: bool


def accept(
    editor: Editor,
    each: int,
    config: DragConfig | None = None,
    report: Callable[[str], None] = print,
    kinds: Sequence[str] = tuple(KINDS),
) -> tuple[list[Row], list[tuple[Trial, Pixels]]]:
    """Edit `each` drags of every kind, of the judging lot.

    Returns:
        A row for each drag; and for the sheet each trial, with the picture that the goal's own
        bottleneck gives.
    """
    config = config or editor.defaults
    rows = list[Row]()
    trials = list[tuple[Trial, Pixels]]()
    for drag in drags(LOT, kinds, each):
        trial = Trial(editor, drag, config)
        previous = trials[-1][0] if trials else None
        row, ideal = _judged(editor, trial, previous, config)
        rows.append(row)
        trials.append((trial, ideal))
        way = f"{row.start_px:4.1f} -> {row.end_px:4.1f} px"
        report(f"{len(rows):3} {row.kind:13} completion {row.completion:5.2f}  {way}")
    return rows, trials


def _judged(
    editor: Editor, trial: Trial, previous: Trial | None, config: DragConfig
) -> tuple[Row, Pixels]:
    drag = trial.drag
    scores = score(drag, trial.picture)
    leverage, goal = goal_bottleneck(editor, drag, config)
    ideal = trial.propagated(goal)
    model = editor.model
    outside = ~grown(drag.area, 5)
    row = Row(
        kind=drag.kind,
        leverage=leverage,
        completion=scores.completion,
        start_px=drag.length_px,
        end_px=scores.distance_px,
        outside_db=psnr(trial.picture, trial.rebuilt, outside if outside.any() else None),
        gain_db=scores.gain_db,
        sharpness=scores.sharpness,
        rebuilt_db=psnr(trial.rebuilt, drag.before),
        vae_db=psnr(decoded(model, encoded(model, drag.before)), drag.before),
        iterations=len(trial.result.history.losses),
        reached=trial.result.reached,
        oracle=find(drag, ideal).completion,
        controls=_controls(trial, previous),
    )
    return row, ideal


def _controls(trial: Trial, previous: Trial | None) -> tuple[float, float, float]:
    """Return the completion without a change, with noise as large as it, and with another's."""
    still = torch.zeros_like(trial.change)
    another = still if previous is None else previous.change

    def completion(change: Tensor) -> float:
        return find(trial.drag, trial.moved_by(change)).completion

    return completion(still), completion(trial.noise_like_the_change()), completion(another)


def _means(rows: Sequence[Row]) -> dict[str, float]:
    names = [name for name in asdict(rows[0]) if name not in ("kind", "controls")]
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    for place, name in enumerate(CONTROLS):
        means[name] = float(np.mean([row.controls[place] for row in rows]))
    return means


def _by_kind(rows: Sequence[Row]) -> dict[str, list[Row]]:
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    return {kind: chosen for kind, chosen in kinds.items() if chosen}


def table(rows: Sequence[Row]) -> str:
    """Format the means by kind and of all, a line each."""
    titles = ("drags", *_means(rows[:1]))
    lines = [" " * 14 + "".join(f"{title:>11}" for title in titles)]
    for name, chosen in (_by_kind(rows) | {"all": list(rows)}).items():
        means = "".join(f"{value:11.2f}" for value in _means(chosen).values())
        lines.append(f"{name:14}{len(chosen):11}{means}")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> Verdict:
    """Judge a model by its rows."""
    means = _means(rows)
    kinds = {kind: _means(chosen) for kind, chosen in _by_kind(rows).items()}
    moving = [row for kind, row in kinds.items() if KINDS[kind].moves]
    wanted = {
        "leverage >= 0.5": means["leverage"] >= 0.5,
        "distance <= 0.3 of the start on every kind that moves": all(
            row["end_px"] <= 0.3 * row["start_px"] for row in moving
        ),
        "sharpness >= 0.8": means["sharpness"] >= 0.8,
        "controls <= 0.1": all(abs(means[name]) <= 0.1 for name in CONTROLS),
        "outside >= 30 dB": means["outside_db"] >= 30,
        "VAE >= 35 dB": means["vae_db"] >= 35,
    }
    rounded = {
        kind: {name: round(value, 3) for name, value in row.items()}
        for kind, row in (kinds | {"all": means}).items()
    }
    return {
        "drags": len(rows),
        "means": rounded,
        "wanted": wanted,
        "accepted": all(wanted.values()),
    }


def sheet(trials: Sequence[tuple[Trial, Pixels]], columns: int = 2) -> PIL.Image.Image:
    """Draw every drag: source with arrow, edit, picture of the goal's own bottleneck, goal.

    There are `columns` drags a line.
    """
    strips = [
        np.concatenate([_with_arrow(trial.drag), trial.picture, ideal, trial.drag.after], 1)
        for trial, ideal in trials
    ]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    lines = [
        np.concatenate(strips[first : first + columns], 1)
        for first in range(0, len(strips), columns)
    ]
    return PIL.Image.fromarray(np.concatenate(lines))


def _with_arrow(drag: Drag) -> Pixels:
    picture = PIL.Image.fromarray(drag.before)
    pen = PIL.ImageDraw.Draw(picture)
    for handle, (x, y) in zip(drag.handles, drag.targets, strict=True):
        angle = math.atan2(y - handle[1], x - handle[0])
        barbs = [
            (x - 5 * math.cos(angle + side), y - 5 * math.sin(angle + side)) for side in (-0.5, 0.5)
        ]
        for end in (handle, *barbs):
            pen.line([end, (x, y)], fill=(230, 0, 0), width=1)
    return np.asarray(picture)


def tune(
    editor: Editor,
    each: int,
    configs: Sequence[DragConfig],
    report: Callable[[str], None] = print,
    kinds: Sequence[str] = TUNED,
) -> DragConfig:
    """Return the settings with the best pictures, on the drags of the tuning lot.

    The best have the largest mean gain in dB against the goal, inside the mask.
    """
    gains = list[float]()
    for config in configs:
        trials = [Trial(editor, drag, config) for drag in drags(TUNING_LOT, kinds, each)]
        scores = [score(trial.drag, trial.picture) for trial in trials]
        gain = float(np.mean([each.gain_db for each in scores]))
        completion = float(np.mean([each.completion for each in scores]))
        distance_px = float(np.mean([each.distance_px for each in scores]))
        reached = float(np.mean([trial.result.reached for trial in trials]))
        gains.append(gain)
        report(
            f"lr {config.lr:g} lam {config.lam:g} end_step {config.end_step}"
            f" iterations {config.iterations}: gain {gain:.2f} dB, completion {completion:.2f},"
            f" {distance_px:.1f} px, reached {reached:.2f}"
        )
    return configs[int(np.argmax(gains))]

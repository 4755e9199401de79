"""Is a model good enough to show DragNoise on? Its edits of held-out drags, against controls that must not move anything."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

from dragnoise.engine import DragConfig, Editor

from .drags import KINDS, Drag, ground_truth_drags, psnr
from .measure import Trial, decoded, edited, oracle
from .shards import encode
from .world import Pixels

SEED = 33
TUNING_SEED = 11
CONTROLS = ("constant", "random", "another's")


@dataclass(frozen=True)
class Row:
    """One drag's numbers. controls: completion with each control's bottleneck instead of the optimum, in the order of `CONTROLS`."""

    kind: str
    leverage: float
    completion: float
    start_px: float
    end_px: float
    outside_db: float
    gain_db: float
    rebuilt_db: float
    vae_db: float
    iterations: int
    reached: bool
    oracle: float
    controls: tuple[float, float, float]


def accept(
    editor: Editor,
    count: int,
    config: DragConfig | None = None,
    report: Callable[[str], None] = print,
) -> tuple[list[Row], list[tuple[Trial, Pixels]]]:
    """Rows of `count` held-out drags, and what the sheet shows: each trial with the picture that the goal's own bottleneck gives."""
    config = config or editor.defaults
    rows, trials, before = list[Row](), list[tuple[Trial, Pixels]](), None
    for drag in ground_truth_drags(count, SEED):
        trial = edited(editor, drag, config)
        before = before if before is not None else trial  # the first has no one before it
        row, ideal = _judged(editor, trial, before, config)
        rows.append(row)
        trials.append((trial, ideal))
        before = trial
        report(
            f"{len(rows):3} {row.kind:8} completion {row.completion:5.2f}  {row.start_px:4.1f} -> {row.end_px:4.1f} px"
        )
    return rows, trials


def _judged(editor: Editor, trial: Trial, another: Trial, config: DragConfig) -> tuple[Row, Pixels]:
    drag, score = trial.drag, trial.score()
    leverage, goal = oracle(editor, drag, config)
    ideal = trial.propagated(goal)
    optimum = trial.optimum
    change = optimum.variable - optimum.start
    noise = torch.randn(change.shape, generator=torch.Generator().manual_seed(0)).to(change)
    moves = (
        torch.zeros_like(change),
        noise * change.norm() / noise.norm(),
        another.optimum.variable - another.optimum.start,
    )
    if another is trial:
        moves = (*moves[:2], torch.zeros_like(change))
    controls = tuple(
        trial.score(trial.propagated(optimum.start + move)).completion for move in moves
    )
    latent = encode(editor.model.vae, [drag.before])
    vae_db = psnr(decoded(editor.model, latent), drag.before)
    row = Row(
        drag.kind, leverage, score.completion, drag.length_px, score.distance_px, score.outside_db, score.gain_db,
        psnr(trial.rebuilt, drag.before), vae_db, len(trial.result.history.losses), trial.result.reached,
        trial.score(ideal).completion, (controls[0], controls[1], controls[2]),
    )  # fmt: skip
    return row, ideal


def _means(rows: Sequence[Row]) -> dict[str, float]:
    names = [name for name in asdict(rows[0]) if name not in ("kind", "controls")]
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return means | {
        name: float(np.mean([row.controls[i] for row in rows])) for i, name in enumerate(CONTROLS)
    }


def table(rows: Sequence[Row]) -> str:
    """Means by kind and of all."""
    titles = ("drags", *_means(rows[:1]))
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    lines = ["".join([f"{'':9}", *(f"{title:>11}" for title in titles)])]
    for name, chosen in [(kind, [row for row in rows if row.kind == kind]) for kind in kinds] + [
        ("all", list(rows))
    ]:
        lines.append(
            "".join(
                [
                    f"{name:9}{len(chosen):11}",
                    *(f"{value:11.2f}" for value in _means(chosen).values()),
                ]
            )
        )
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> dict[str, Any]:
    """The means, by kind and of all, and for each thing that is wanted whether it was reached."""
    means = _means(rows)
    kinds = {
        kind: _means([row for row in rows if row.kind == kind])
        for kind in KINDS
        if any(row.kind == kind for row in rows)
    }
    wanted = {
        "leverage >= 0.5": means["leverage"] >= 0.5,
        "completion >= 0.6": means["completion"] >= 0.6,
        "distance halved on every kind": all(
            kind["end_px"] <= kind["start_px"] / 2 for kind in kinds.values()
        ),
        "controls <= 0.2": all(means[name] <= 0.2 for name in CONTROLS),
        "outside >= 30 dB": means["outside_db"] >= 30,
        "VAE >= 30 dB": means["vae_db"] >= 30,
    }
    rounded = {
        kind: {name: round(value, 3) for name, value in row.items()}
        for kind, row in (*kinds.items(), ("all", means))
    }
    return {
        "drags": len(rows),
        "means": rounded,
        "wanted": wanted,
        "accepted": all(wanted.values()),
    }


def sheet(trials: Sequence[tuple[Trial, Pixels]], columns: int = 2) -> PIL.Image.Image:
    """Every drag as source with its arrow, edit, what the goal's own bottleneck gives, goal; `columns` drags a line."""
    strips = [
        np.concatenate([_with_arrow(trial.drag), trial.picture, ideal, trial.drag.after], 1)
        for trial, ideal in trials
    ]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    return PIL.Image.fromarray(
        np.concatenate(
            [np.concatenate(strips[i : i + columns], 1) for i in range(0, len(strips), columns)]
        )
    )


def _with_arrow(drag: Drag) -> Pixels:
    picture = PIL.Image.fromarray(drag.before)
    (x0, y0), (x1, y1) = drag.handle, drag.target
    angle = math.atan2(y1 - y0, x1 - x0)
    tips = [
        (x1 - 5 * math.cos(angle + side), y1 - 5 * math.sin(angle + side)) for side in (-0.5, 0.5)
    ]
    pen = PIL.ImageDraw.Draw(picture)
    for end in ((x0, y0), *tips):
        pen.line([end, (x1, y1)], fill=(230, 0, 0), width=1)
    return np.asarray(picture)


def tune(
    editor: Editor, count: int, configs: Sequence[DragConfig], report: Callable[[str], None] = print
) -> DragConfig:
    """The settings with the best pictures (mean gain in dB against the goal, inside the mask) on drags that `accept` does not use."""
    scores = []
    for config in configs:
        trials = [edited(editor, drag, config) for drag in ground_truth_drags(count, TUNING_SEED)]
        found = [trial.score() for trial in trials]
        gain, share, px = (
            float(np.mean(values))
            for values in zip(
                *((s.gain_db, s.completion, s.distance_px) for s in found), strict=True
            )
        )
        reached = float(np.mean([trial.result.reached for trial in trials]))
        scores.append(gain)
        settings = f"lr {config.lr:g} lam {config.lam:g} end_step {config.end_step} iterations {config.iterations}"
        report(
            f"{settings}: gain {gain:.2f} dB, completion {share:.2f}, {px:.1f} px, reached {reached:.2f}"
        )
    return configs[int(np.argmax(scores))]

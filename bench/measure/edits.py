"""Whole edits: the rows of the waterfall, one after the other in every round, by stage.

Long stages repeat one turn (a step, an iteration). Where a whole edit takes too long, a few turns are run and the whole is computed: what a stage
took beside its turns, and its median turn as often as a whole edit takes it. Such figures are labelled with what was run.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dragnoise.engine import DragConfig, Editor, Image, Mask, Points
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.session.result import EditResult

from .artefacts import make
from .rows import Row
from .timing import Spread, peak_bytes, ratio, reset_peak

__all__ = ["Case", "Measured", "measure"]

_TURNS = ("invert", "drag", "propagate")


@dataclass(frozen=True)
class Case:
    """What is edited. size: (height, width). whole: the settings of the edit that is asked about; run: of the one that is run, with fewer turns or
    the same."""

    size: tuple[int, int]
    mask: bool
    whole: DragConfig
    run: DragConfig

    @property
    def computed(self) -> bool:
        """Whether the whole is computed from a few turns."""
        return self.whole != self.run

    def inputs(self) -> dict[str, Any]:
        """A picture of soft noise, one handle in the middle that cannot arrive in time, the middle half free to change."""
        height, width = self.size
        random = np.random.default_rng(0)
        small = random.random((height // 8 + 1, width // 8 + 1, 3)) * 255
        pixels = np.kron(small, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
        free = np.zeros((height, width), np.bool_)
        free[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
        return {
            "image": Image(pixels),
            "points": Points.of([((width // 2, height // 2), (width // 2, 3 * height // 4 - 1))]),
            "mask": Mask(free) if self.mask else None,
            "config": self.run,
        }

    def turns(self, stage: str, config: DragConfig) -> int:
        return config.iterations if stage == "drag" else config.active_steps


@dataclass(frozen=True)
class Measured:
    """A row, measured: milliseconds of the whole edit in every round, by stage and in all; of a turn of the long stages; the last round's result."""

    row: Row
    stages_ms: Mapping[str, Sequence[float]]
    turns_ms: Mapping[str, Sequence[float]]
    total_ms: Sequence[float]
    peak: Mapping[str, Any]
    result: EditResult

    def to_dict(self, first: "Measured", above: "Measured") -> dict[str, Any]:
        """As the record holds it: times, ratios to the first row and to the one above, the difference of the picture from the first row's."""
        mine, theirs = (one.result.image.pixels.astype(int) for one in (self, first))
        apart = np.abs(mine - theirs)
        return {
            "row": self.row.name,
            "what": self.row.what,
            "total_ms": Spread.of(self.total_ms).to_dict(),
            "stages_ms": {
                name: Spread.of(values).to_dict() for name, values in self.stages_ms.items()
            },
            "turns_ms": {
                name: Spread.of(values).to_dict() for name, values in self.turns_ms.items()
            },
            "ratio_to_first": ratio(first.total_ms, self.total_ms).to_dict(),
            "ratio_to_above": ratio(above.total_ms, self.total_ms).to_dict(),
            "turn_ratio_to_first": {
                name: ratio(first.turns_ms[name], values).to_dict()
                for name, values in self.turns_ms.items()
                if name in first.turns_ms
            },
            "image_difference": {"largest": int(apart.max()), "mean": float(f"{apart.mean():.3g}")},
            "reached": self.result.reached,
            "peak_bytes": dict(self.peak),
            "settings": {
                name: value for name, value in self.result.settings.items() if name != "config"
            },
        }


def measure(
    model: Model,
    rows: Sequence[Row],
    case: Case,
    rounds: int,
    *,
    watch: Callable[[str], object] = lambda said: None,
) -> list[Measured]:
    """Every row once a round, in their order; a round before them with few turns does not count (it loads, packs, compiles)."""
    with tempfile.TemporaryDirectory(prefix="dragnoise-bench-") as work:
        folder = Path(work)
        if any(row.exported for row in rows):
            make(model, case.size, folder, watch)
        editors = {
            row.name: row.editor(model, exported=folder) if row.exported else row.editor(model)
            for row in rows
        }
        return _rounds(model, rows, editors, case, rounds, watch)


def _rounds(
    model: Model,
    rows: Sequence[Row],
    editors: Mapping[str, Any],
    case: Case,
    rounds: int,
    watch: Callable[[str], object],
) -> list[Measured]:
    inputs = case.inputs()
    short = case.run.replace(iterations=min(case.run.iterations, 2), strength=2.5 / case.run.steps)
    for row in rows:
        watch(f"warming up {row.name}")
        editors[row.name].edit(**(inputs | {"config": short}), method=row.method)
    kept: dict[str, list[tuple[dict[str, float], dict[str, float], EditResult]]] = {
        row.name: [] for row in rows
    }
    peaks: dict[str, dict[str, Any]] = {}
    for number in range(rounds):
        for row in rows:
            watch(f"round {number + 1} of {rounds}: {row.name}")
            reset_peak(model.device)
            kept[row.name].append(_one(editors[row.name], row, case, inputs))
            peaks[row.name] = peak_bytes(model.device)
    return [_measured(row, kept[row.name], peaks[row.name]) for row in rows]


def _measured(
    row: Row,
    rounds: Sequence[tuple[dict[str, float], dict[str, float], EditResult]],
    peak: Mapping[str, Any],
) -> Measured:
    stages = {name: [stages[name] for stages, _, _ in rounds] for name in rounds[0][0]}
    turns = {name: [turns[name] for _, turns, _ in rounds] for name in rounds[0][1]}
    total = [sum(stages.values()) for stages, _, _ in rounds]
    return Measured(row, stages, turns, total, peak, rounds[-1][2])


def _one(
    editor: Editor, row: Row, case: Case, inputs: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, float], EditResult]:
    """(milliseconds of every stage of the whole edit, of a turn of the long ones, the result)"""
    ended: dict[str, list[float]] = {name: [] for name in _TURNS}

    def progress(stage: str, done: int, of: int) -> None:
        if editor.model.device.type == "cuda" and case.computed:
            torch.cuda.synchronize()
        ended[stage].append(time.perf_counter())

    result = editor.edit(**inputs, method=row.method, progress=progress)
    stages = {name: ms for name, ms in result.timings_ms.items() if name != "total"}
    turns = {
        name: float(np.median(np.diff(times))) * 1e3
        for name, times in ended.items()
        if len(times) > 1
    }
    if case.computed:
        for name, turn_ms in turns.items():
            stages[name] += turn_ms * (case.turns(name, case.whole) - case.turns(name, case.run))
    return stages, turns, result

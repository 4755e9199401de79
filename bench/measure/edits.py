"""Measure whole edits: every row of the waterfall once a round, by stage.

Long stages repeat one thing: a step, or an iteration. Where a whole edit takes too long, a few of
these are run and the whole is computed: what a stage took beside them, and the median of one as
often as a whole edit repeats it. Such figures are labelled with what was run.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from dragnoise.engine import DragConfig, Image, Mask, Points
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.drag.method import AnyMethod
from dragnoise.engine.session.result import EditResult

from .artefacts import make
from .rows import Edits, Row
from .timing import Spread, peak_bytes, ratio, reset_peak

__all__ = ["Case", "Inputs", "Measured", "Watch", "inputs_of", "measure"]

Watch = Callable[[str], object]
"""Called with what is measured next."""

_LONG_STAGES = ("invert", "drag", "show", "propagate")


class Inputs(TypedDict):
    """An edit's inputs, as keywords of `Editor.edit`."""

    image: Image
    points: Points
    mask: Mask | None
    config: DragConfig


@dataclass(frozen=True)
class Case:
    """An edit to measure.

    Attributes:
        size: (height, width) of the picture in pixels.
        mask: Whether something must stay.
        whole: The settings of the edit whose time is wanted.
        run: The settings of the edit that is run: the same, or fewer steps and iterations.
    """

    size: tuple[int, int]
    mask: bool
    whole: DragConfig
    run: DragConfig

    @property
    def computed(self) -> bool:
        """Tell whether the whole is computed from a part of it."""
        return self.whole != self.run

    def inputs(self) -> Inputs:
        """Make the inputs.

        They are a picture of soft noise, one handle in the middle that cannot arrive in time, and
        the middle half free to change.
        """
        height, width = self.size
        random = np.random.default_rng(0)
        small = random.random((height // 8 + 1, width // 8 + 1, 3)) * 255
        pixels = np.kron(small, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
        free = np.zeros((height, width), np.bool_)
        free[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
        middle = (width // 2, height // 2)
        return {
            "image": Image(pixels),
            "points": Points.of([(middle, (width // 2, 3 * height // 4 - 1))]),
            "mask": Mask(free) if self.mask else None,
            "config": self.run,
        }

    def missing(self, stage: str) -> int:
        """Return how many repeats of a long stage are computed, not run."""
        if stage == "drag":
            return self.whole.iterations - self.run.iterations
        return self.whole.active_steps - self.run.active_steps


@dataclass(frozen=True)
class _Times:
    """An edit's times, and its result.

    Attributes:
        stages_ms: Milliseconds of every stage of the whole edit.
        repeats_ms: Median milliseconds of a repeat, by long stage.
        result: The edit.
    """

    stages_ms: Mapping[str, float]
    repeats_ms: Mapping[str, float]
    result: EditResult


@dataclass(frozen=True)
class Measured:
    """A row that was measured.

    Attributes:
        row: The row.
        stages_ms: Milliseconds of every stage of the whole edit, of every round.
        repeats_ms: Milliseconds of one step or iteration by long stage, of every round.
        total_ms: Milliseconds of the whole edit, of every round.
        peak: The most bytes in use, by where.
        result: The last round's edit.
    """

    row: Row
    stages_ms: Mapping[str, Sequence[float]]
    repeats_ms: Mapping[str, Sequence[float]]
    total_ms: Sequence[float]
    peak: Mapping[str, int | None]
    result: EditResult

    def to_dict(self, first: "Measured", above: "Measured") -> dict[str, Any]:
        """Return the row as the record holds it.

        Args:
            first: The first row: ratios and the difference of the pictures are to it.
            above: The row above: ratios are to it too.
        """
        pixels = self.result.image.pixels.astype(int)
        apart = np.abs(pixels - first.result.image.pixels.astype(int))
        settings = self.result.settings
        return {
            "row": self.row.name,
            "what": self.row.what,
            "total_ms": Spread.of(self.total_ms).to_dict(),
            "stages_ms": _spreads(self.stages_ms),
            "turns_ms": _spreads(self.repeats_ms),
            "ratio_to_first": ratio(first.total_ms, self.total_ms).to_dict(),
            "ratio_to_above": ratio(above.total_ms, self.total_ms).to_dict(),
            "turn_ratio_to_first": {
                name: ratio(first.repeats_ms[name], values).to_dict()
                for name, values in self.repeats_ms.items()
                if name in first.repeats_ms
            },
            "image_difference": {"largest": int(apart.max()), "mean": float(f"{apart.mean():.3g}")},
            "reached": self.result.reached,
            "peak_bytes": dict(self.peak),
            "settings": {name: settings[name] for name in settings if name != "config"},
        }


def _spreads(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    return {name: Spread.of(values).to_dict() for name, values in times.items()}


def measure(
    model: Model,
    rows: Sequence[Row],
    case: Case,
    rounds: int,
    *,
    exported: Path | None = None,
    watch: Watch = lambda what: None,
) -> list[Measured]:
    """Measure every row once a round, in their order.

    A round before them with few steps and iterations does not count: it loads, packs, compiles.

    Args:
        model: The model, in float32 for the published code's rows.
        rows: The rows.
        case: The edit.
        rounds: How many rounds count.
        exported: A folder for exported parts, which stay there and are taken from there; None for a
            folder that goes with the measurement.
        watch: Called with what is measured next.
    """
    with tempfile.TemporaryDirectory(prefix="dragnoise-bench-") as work:
        folder = exported or Path(work)
        if any(row.exported for row in rows):
            make(model, case.size, folder, watch)
        editors = {
            row.name: row.editor(model, exported=folder) if row.exported else row.editor(model)
            for row in rows
        }
        return _rounds(rows, editors, case, rounds, watch)


def _rounds(
    rows: Sequence[Row], editors: Mapping[str, Edits], case: Case, rounds: int, watch: Watch
) -> list[Measured]:
    short = case.run.replace(iterations=min(case.run.iterations, 2), strength=2.5 / case.run.steps)
    for row in rows:
        watch(f"warming up {row.name}")
        editors[row.name].edit(**inputs_of(case, row.method, short), method=row.method)
    times: dict[str, list[_Times]] = {row.name: [] for row in rows}
    peaks: dict[str, Mapping[str, int | None]] = {}
    for number in range(rounds):
        for row in rows:
            watch(f"round {number + 1} of {rounds}: {row.name}")
            editor = editors[row.name]
            reset_peak(editor.model.device)
            inputs = inputs_of(case, row.method, case.run)
            times[row.name].append(_edit(editor, row, case, inputs))
            peaks[row.name] = peak_bytes(editor.model.device)
    return [_measured(row, times[row.name], peaks[row.name]) for row in rows]


def inputs_of(case: Case, method: AnyMethod, config: DragConfig) -> dict[str, Any]:
    """Return a case's inputs with these settings as a method has them.

    What only the method has is its default.
    """
    inputs: dict[str, Any] = dict(case.inputs())
    own = {field.name for field in dataclasses.fields(method.settings)}
    shared = {name: value for name, value in config.to_dict().items() if name in own}
    return inputs | {"config": method.settings().replace(**shared)}


def _measured(row: Row, rounds: Sequence[_Times], peak: Mapping[str, int | None]) -> Measured:
    first = rounds[0]
    return Measured(
        row=row,
        stages_ms={name: [times.stages_ms[name] for times in rounds] for name in first.stages_ms},
        repeats_ms={
            name: [times.repeats_ms[name] for times in rounds] for name in first.repeats_ms
        },
        total_ms=[sum(times.stages_ms.values()) for times in rounds],
        peak=peak,
        result=rounds[-1].result,
    )


def _edit(editor: Edits, row: Row, case: Case, inputs: Mapping[str, Any]) -> _Times:
    """Edit once; compute what was not run."""
    ended: dict[str, list[float]] = {name: [] for name in _LONG_STAGES}
    waits = editor.model.device.type == "cuda" and case.computed

    def progress(stage: str, done: int, of: int) -> None:
        if waits:
            torch.cuda.synchronize()
        ended[stage].append(time.perf_counter())

    result = editor.edit(**inputs, method=row.method, progress=progress)
    stages_ms = {name: ms for name, ms in result.timings_ms.items() if name != "total"}
    repeats_ms = {
        name: float(np.median(np.diff(times))) * 1e3
        for name, times in ended.items()
        if len(times) > 1
    }
    if case.computed:
        for name, repeat_ms in repeats_ms.items():
            stages_ms[name] += repeat_ms * case.missing(name)
    return _Times(stages_ms, repeats_ms, result)

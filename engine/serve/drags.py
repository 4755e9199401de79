"""Drags and trainings as a client asks for them: in the engine's words, and back."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..editor import Editor
from ..inputs.preset import preset_of
from ..session.request import row_of, settings_of
from ..session.result import EditResult
from .documents import DragAsked, PersonaliseAsked, PointEnded, Progress, Result
from .held import Held
from .settings import ServeSettings

__all__ = ["Told", "dragged", "learned", "result_of"]

Told = Callable[[str, Mapping[str, Any]], None]
"""Called in the work's thread with an event's name and its data."""


def silent(event: str, data: Mapping[str, Any]) -> None:
    """Tell nobody."""


def dragged(
    editor: Editor, settings: ServeSettings, held: Held, asked: DragAsked, tell: Told = silent
) -> Callable[[], Result]:
    """Return the work of a drag, checked as far as it can be without the device.

    Raises:
        DragnoiseError: A setting is wrong.
    """
    preset = asked.preset or settings.preset
    how = _how(editor, held, preset, asked.settings)
    timeout_s = min(asked.timeout_s or settings.timeout_s, settings.timeout_s)

    def work() -> Result:
        since_s = time.perf_counter()
        events = held.session.drag_stream(
            [tuple(drag) for drag in asked.drags],
            base=asked.base,
            previews=None,
            mask=held.mask,
            progress=lambda stage, done, of: tell("progress", progress(stage, done, of)),
            timeout_s=timeout_s,
            **how,
        )
        result: EditResult | None = None
        for event in events:
            result = event.result
            if result is None:
                tell("iteration", _iteration(event))
        assert result is not None
        held.changed()
        return result_of(held, result, preset, asked.base, time.perf_counter() - since_s)

    return work


def learned(
    settings: ServeSettings, held: Held, asked: PersonaliseAsked, tell: Told = silent
) -> Callable[[], Result]:
    """Return the work of a training."""
    timeout_s = min(asked.timeout_s or settings.timeout_s, settings.timeout_s)

    def work() -> Result:
        since_s = time.perf_counter()
        held.session.personalise(
            steps=asked.steps,
            progress=lambda stage, done, of: tell("progress", progress(stage, done, of)),
            timeout_s=timeout_s,
        )
        held.unsaved = True
        took_s = time.perf_counter() - since_s
        return Result(
            state=held.state(),
            reached=True,
            iterations=asked.steps,
            seconds=round(took_s, 3),
            timings_ms={"personalise": round(took_s * 1e3, 3)},
            method="personalise",
            preset="",
            base="source",
            points=[],
            warnings=[],
        )

    return work


def result_of(held: Held, result: EditResult, preset: str, base: str, seconds: float) -> Result:
    """Return what is said of a drag's result, which the session shows now."""
    held.warnings = (*held.session.source.notices, *result.warnings)
    pairs = zip(result.points.handles, result.points.targets, strict=True)
    return Result(
        state=held.state(),
        reached=result.reached,
        iterations=len(result.history.losses),
        seconds=round(seconds, 3),
        timings_ms={name: round(ms, 3) for name, ms in result.timings_ms.items()},
        method=str(result.settings["method"]),
        preset=preset,
        base=str(result.settings.get("base", base)),
        points=[PointEnded(ended=ended, target=target) for ended, target in pairs],
        warnings=list(result.warnings),
    )


def progress(stage: str, done: int, of: int) -> dict[str, Any]:
    """Return what is said of how far a stage is."""
    return Progress(stage=stage, done=done, of=of).model_dump()


def _how(editor: Editor, held: Held, preset: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a drag by a preset, with some of its settings changed."""
    row = row_of(None, preset)
    grip = {"grip": held.grip} if row.grips else {}
    if not changes:
        return {"preset": preset, **grip}
    usual: Any = settings_of(row, None, editor.defaults_of(row), preset)
    method = preset_of(preset).method
    return {"method": method, "config": usual.replace(**changes), **grip}


def _iteration(event: Any) -> dict[str, Any]:
    return {
        "iteration": event.iteration,
        "points": [list(handle) for handle in event.points.handles],
        "loss": event.loss if math.isfinite(event.loss) else None,
    }

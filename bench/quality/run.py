"""Let contestants edit drags, and keep pictures and scores, a job at a time."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ..fidelity.pixels import Pixels
from ..world.drags import Drag, drag
from .contestants import CONTESTANTS, OF_GENERATED, Attempt, Contestant, Studio
from .generated import GENERATED, GeneratedDrag, generated_drag
from .scores import score, score_place

__all__ = ["by_drag", "jobs_of", "names_of", "worker"]


def names_of(lot: str, kinds: Sequence[str], each: int) -> list[str]:
    """Return the names of drags, the kinds one after the other."""
    return [f"{lot}-{kind}-{number}" for number in range(each) for kind in kinds]


def jobs_of(names: Sequence[str], contestants: Sequence[str]) -> list[str]:
    """Return the jobs of drags: all contestants on one drag, then the next drag."""
    return [f"{name}/{contestant}" for name in names for contestant in contestants]


def _parts(name: str) -> tuple[str, str, int]:
    """Return lot, kind and number of a drag's name, as "judging-boat-turn-3"."""
    lot, rest = name.split("-", 1)
    kind, number = rest.rsplit("-", 1)
    return lot, kind, int(number)


@lru_cache(maxsize=2)
def _drawn(name: str) -> Drag:
    """Draw the drag of a name."""
    return drag(*_parts(name))


def worker(studio: Studio, pictures: Path | None) -> Callable[[str], dict[str, Any]]:
    """Return what does a job: lets a contestant edit a drag, and scores what it makes.

    A job's name is "DRAG/CONTESTANT", as "judging-boat-3/dragnoise".

    Args:
        studio: The editor.
        pictures: Where a folder of each drag's pictures is written; None: nowhere.
    """

    @lru_cache(maxsize=1)
    def generated(name: str) -> GeneratedDrag:
        return generated_drag(studio.editor, *_parts(name))

    def work(name: str) -> dict[str, Any]:
        drag_name, contestant = name.split("/")
        is_generated = _parts(drag_name)[1] in GENERATED
        drag: Drag = generated(drag_name) if is_generated else _drawn(drag_name)
        row = (OF_GENERATED if is_generated else CONTESTANTS)[contestant]
        attempt, took = _attempted(row, studio, drag)
        scores = (
            {"drag": _described(drag)} | score_place(drag, attempt.picture)
            if is_generated
            else score(drag, attempt.picture).to_dict()
        )
        if pictures is not None:
            _write(pictures / drag_name, drag, contestant, attempt.picture)
        return scores | {
            "iterations": attempt.iterations,
            "reached": attempt.reached,
            "tflop": attempt.tflop,
            "seconds": took,
        }

    return work


def _attempted(row: Contestant, studio: Studio, drag: Drag) -> tuple[Attempt, float | None]:
    """Let a contestant edit a drag; return also the seconds, if they are an edit's."""
    begun = time.perf_counter()
    attempt = row.attempt(studio, drag)
    took = time.perf_counter() - begun if row.timed else None
    return attempt, took if attempt.seconds is None else attempt.seconds


def by_drag(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Gather the results of jobs by their drags, each with what the drag is."""
    drags = dict[str, dict[str, Any]]()
    for name, result in results.items():
        drag_name, contestant = name.split("/")
        scores = dict(result)
        drag = drags.setdefault(drag_name, {})
        drag.update(scores.pop("drag", {}))
        drag.setdefault("scores", {})[contestant] = scores
    return {name: _with_what_it_is(name, drag) for name, drag in drags.items()}


def _with_what_it_is(name: str, drag: dict[str, Any]) -> dict[str, Any]:
    """Return a drag with what it is; one that nobody could make as what failed."""
    if "kind" in drag:
        return drag
    if _parts(name)[1] in GENERATED:
        return dict(next(iter(drag["scores"].values())))
    return _described(_drawn(name)) | drag


def _described(drag: Drag) -> dict[str, Any]:
    return {
        "kind": drag.kind,
        "length_px": drag.length_px,
        "prompt": drag.prompt,
        "handles": [list(point) for point in drag.handles],
        "targets": [list(point) for point in drag.targets],
    }


def _write(folder: Path, drag: Drag, contestant: str, picture: Pixels) -> None:
    """Write a contestant's picture, and beside it what the drag shows and should show."""
    mask = np.where(drag.allowed, np.uint8(255), np.uint8(0))
    pictures = {"before": drag.before, "after": drag.after, "mask": mask, contestant: picture}
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        PIL.Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)

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
from .contestants import CONTESTANTS, Studio
from .scores import score

__all__ = ["by_drag", "jobs_of", "names_of", "worker"]


def names_of(lot: str, kinds: Sequence[str], each: int) -> list[str]:
    """Return the names of drags, the kinds one after the other."""
    return [f"{lot}-{kind}-{number}" for number in range(each) for kind in kinds]


def jobs_of(names: Sequence[str], contestants: Sequence[str]) -> list[str]:
    """Return the jobs of drags: all contestants on one drag, then the next drag."""
    return [f"{name}/{contestant}" for name in names for contestant in contestants]


@lru_cache(maxsize=2)
def _drawn(name: str) -> Drag:
    """Draw the drag of a name such as "judging-boat-turn-3"."""
    lot, rest = name.split("-", 1)
    kind, number = rest.rsplit("-", 1)
    return drag(lot, kind, int(number))


def worker(studio: Studio, pictures: Path | None) -> Callable[[str], dict[str, Any]]:
    """Return what does a job: lets a contestant edit a drag, and scores what it makes.

    A job's name is "DRAG/CONTESTANT", as "judging-boat-3/dragnoise".

    Args:
        studio: The editor.
        pictures: Where a folder of each drag's pictures is written; None: nowhere.
    """

    def work(name: str) -> dict[str, Any]:
        drag_name, contestant = name.split("/")
        drag = _drawn(drag_name)
        row = CONTESTANTS[contestant]
        begun = time.perf_counter()
        attempt = row.attempt(studio, drag)
        took = time.perf_counter() - begun if row.timed else None
        if pictures is not None:
            _write(pictures / drag_name, drag, contestant, attempt.picture)
        return score(drag, attempt.picture).to_dict() | {
            "iterations": attempt.iterations,
            "reached": attempt.reached,
            "tflop": attempt.tflop,
            "seconds": took if attempt.seconds is None else attempt.seconds,
        }

    return work


def by_drag(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Gather the results of jobs by their drags, each with what the drag is."""
    drags = dict[str, dict[str, Any]]()
    for name, result in results.items():
        drag_name, contestant = name.split("/")
        if drag_name not in drags:
            drags[drag_name] = _described(_drawn(drag_name))
        drags[drag_name]["scores"][contestant] = dict(result)
    return drags


def _described(drag: Drag) -> dict[str, Any]:
    return {
        "kind": drag.kind,
        "length_px": drag.length_px,
        "prompt": drag.prompt,
        "handles": [list(point) for point in drag.handles],
        "targets": [list(point) for point in drag.targets],
        "scores": {},
    }


def _write(folder: Path, drag: Drag, contestant: str, picture: Pixels) -> None:
    """Write a contestant's picture, and beside it what the drag shows and should show."""
    mask = np.where(drag.allowed, np.uint8(255), np.uint8(0))
    pictures = {"before": drag.before, "after": drag.after, "mask": mask, contestant: picture}
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        PIL.Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)

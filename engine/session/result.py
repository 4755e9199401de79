"""The result of an edit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import Settings
from ..inputs.image import Image
from ..inputs.points import Points
from ..pipelines.record import Record
from ..system.timers import rounded

__all__ = ["EditResult", "History", "Progress", "Record", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of how many) while the long stages work."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing: the progress of those who do not ask for it."""


@dataclass(frozen=True, eq=False)
class History:
    """A drag, iteration by iteration.

    Attributes:
        losses: float32 [updates].
        handles: float64 [iterations, N, 2], (x, y) image pixels, the first where they were placed.
    """

    losses: npt.NDArray[np.float32]
    handles: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EditResult:
    """An edit: the picture, where its points ended, and how it came about.

    Attributes:
        image: The edited picture, in the input's size.
        points: Where the handles ended, with their targets, in image pixels.
        reached: Whether every handle came within 2 supervision pixels of its target.
        history: Losses and handles, iteration by iteration.
        timings_ms: Milliseconds by stage, and "total"; of the stages that ran: what was at hand is
            not among them.
        settings: What the edit ran with: method, model, device, precision, threads, configuration,
            base, backend and why no other.
        record: Every intermediate, if it was asked for.
        cache: The numbers of the editor's store after this edit (hits, misses, bytes, evictions,
            saved milliseconds); empty without one.
        warnings: What a person should know of the input (a prompt that was cut, for example).
    """

    image: Image
    points: Points
    reached: bool
    history: History
    timings_ms: Mapping[str, float]
    settings: Mapping[str, Any]
    record: Record | None
    cache: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture and the record, ready for JSON."""
        config = self.settings["config"]
        described = config.to_dict() if isinstance(config, Settings) else config
        pairs = zip(self.points.handles, self.points.targets, strict=True)
        return {
            "reached": self.reached,
            "iterations": len(self.history.losses),
            "losses": self.history.losses.tolist(),
            "points": [{"ended": list(ended), "target": list(target)} for ended, target in pairs],
            "timings_ms": rounded(self.timings_ms),
            "cache": dict(self.cache),
            "settings": {**self.settings, "config": described},
            "warnings": list(self.warnings),
        }

"""A drag as a session is asked for it, and its iterations as a session watches them."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from ..config import DragConfig
from ..inputs.mask import Mask
from ..inputs.points import Points
from ..methods import Method, Scene
from ..pipelines.source import Prepared
from ..run import Run
from ..stages import Iteration, Optimum
from .result import Progress
from .stream import PreviewPacer

__all__ = ["Base", "DragRequest", "Turn", "watched"]

Base = Literal["source", "result", "inverted", "last"]
"""Where a drag begins: see session.py."""


@dataclass(frozen=True, eq=False)
class Turn:
    """An iteration of a drag, and what it is an iteration of."""

    iteration: Iteration
    scene: Scene
    prepared: Prepared
    run: Run


@dataclass(frozen=True, eq=False)
class DragRequest:
    """A drag as it was asked for, checked. check: raises where the work shall end. pace: times the loop."""

    points: Points
    limit: Mask | None
    config: DragConfig
    method: Method
    base: Base
    record: bool
    wants_noise: bool
    progress: Progress
    check: Callable[[], None]
    pace: PreviewPacer

    def steps(self, stage: str) -> Callable[[int], None]:
        """What a stage of denoising steps is watched by."""

        def on_step(done: int) -> None:
            self.check()
            self.progress(stage, done, self.config.active_steps)

        return on_step


def watched(
    turns: Generator[Iteration, None, Optimum],
    asked: DragRequest,
    turn: Callable[[Iteration], Turn],
) -> Generator[Turn, None, Optimum]:
    """Reports every iteration, and ends the drag where it shall end."""
    while True:
        try:
            iteration = next(turns)
        except StopIteration as done:
            found: Optimum = done.value
            return found
        asked.check()
        asked.progress("drag", iteration.number + 1, asked.config.iterations)
        yield turn(iteration)

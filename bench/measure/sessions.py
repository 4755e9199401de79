"""Measure drags on one picture: the published code, our first edit, and what comes after it.

    first      everything, as `Editor.edit` does
    again      a session's next drag on the same picture, other points or targets
    result     a drag on what the last one made
    stored     an edit that finds what a stored folder holds: another process, the same picture
    stream     as again, with previews at their default pace

Pictures are compared with the first row's. Those of `first`, `again`, `stored` and `stream` are the
same; `result` begins elsewhere.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypedDict

from dragnoise.engine import DragConfig, Editor, Image, Mask, Points, Store
from dragnoise.engine.cache import Limits
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.drag.method import AnyMethod
from dragnoise.engine.methods import METHODS
from dragnoise.engine.session.request import DragOptions
from dragnoise.engine.session.result import EditResult, Progress
from dragnoise.engine.session.session import Base, Session

from ..report.record import number
from .rows import Row
from .timing import Spread

__all__ = ["MouseMoves", "follow_a_mouse", "mouse_table", "session_rows"]


class _Again:
    """A session that is prepared before it is timed, and edits by its next drag.

    Args:
        model: The model.
        base: Where its drags begin.
    """

    def __init__(self, model: Model, base: Base = "source") -> None:
        self._editor = Editor(model, check_pictures=False)
        self._base = base
        self._session: Session | None = None

    @property
    def model(self) -> Model:
        return self._editor.model

    def edit(
        self,
        image: Image,
        points: Points,
        *,
        mask: Mask | None = None,
        config: DragConfig | None = None,
        method: AnyMethod,
        progress: Progress | None = None,
    ) -> EditResult:
        if self._session is None:
            self._session = self._editor.open(image)
        config = config or self._editor.defaults
        self._session.prepare(config)
        if self._base == "result":
            self._leave_a_result(self._session, points, mask, config, method)
        drag: DragOptions = {
            "mask": mask,
            "config": config,
            "method": method,
            "progress": progress,
        }
        return self._drag(self._session, points, drag)

    def _leave_a_result(
        self,
        session: Session,
        points: Points,
        mask: Mask | None,
        config: DragConfig,
        method: AnyMethod,
    ) -> None:
        """Undo all drags and make a short one, so that every round begins at the same result."""
        while session.image is not session.source:
            session.undo()
        session.drag(points, mask=mask, config=config.replace(iterations=1), method=method)

    def _drag(self, session: Session, points: Points, drag: DragOptions) -> EditResult:
        return session.drag(points, base=self._base, **drag)


class _Stream(_Again):
    """A session whose next drag is streamed."""

    def _drag(self, session: Session, points: Points, drag: DragOptions) -> EditResult:
        *_, last = session.drag_stream(points, **drag)
        assert last.result is not None
        return last.result


class _Stored:
    """An editor whose store has a folder and no memory: it knows what lies in files, no more."""

    def __init__(self, model: Model) -> None:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        store = Store(Limits(device_bytes=0, host_bytes=0), folder=folder)
        self._editor = Editor(model, cache=store, check_pictures=False)

    @property
    def model(self) -> Model:
        return self._editor.model

    def edit(
        self,
        image: Image,
        points: Points,
        *,
        mask: Mask | None = None,
        config: DragConfig | None = None,
        method: AnyMethod,
        progress: Progress | None = None,
    ) -> EditResult:
        config = config or self._editor.defaults
        still = config.replace(iterations=0)
        self._editor.edit(image, points, mask=mask, config=still, method=method)
        return self._editor.edit(
            image, points, mask=mask, config=config, method=method, progress=progress
        )


def session_rows(method: str = "dragnoise") -> tuple[Row, ...]:
    """Return a method's rows; ratios "to first" are to the first of them.

    That is its published execution, or, where that is not restated, DragNoise's.
    """
    ours = METHODS[method]
    restated = METHODS.get(f"{method}-baseline", METHODS["baseline"])
    return (
        Row(
            "baseline",
            "the published code, everything repeated",
            partial(Editor, backend="eager"),
            restated,
        ),
        Row("first", "our first edit", Editor, ours),
        Row("again", "the next drag on the same picture", _Again, ours),
        Row(
            "result",
            "a drag on the last one's picture, nothing inverted",
            partial(_Again, base="result"),
            ours,
        ),
        Row("stored", "the first edit of another process on the same picture", _Stored, ours),
        Row("stream", "the next drag, with previews", _Stream, ours),
    )


class MouseMoves(TypedDict):
    """A drag whose target moved on, as the record holds it.

    Attributes:
        sample: The sample's name.
        first_ms: Milliseconds of the first drag.
        first_iterations: Its iterations.
        first_reached: Whether its handles arrived.
        went_ms: Milliseconds of the moves, as a `Spread`.
        went_iterations: Iterations of each move.
        went_reached: How many moves arrived.
        moves: How many there were.
    """

    sample: str
    first_ms: float
    first_iterations: int
    first_reached: bool
    went_ms: dict[str, float]
    went_iterations: list[int]
    went_reached: int
    moves: int


def follow_a_mouse(model: Model, moves: int = 5) -> Iterator[MouseMoves]:
    """Drag on the embedded model's samples, then move the target on by 3 pixels `moves` times.

    Each move goes on from the last drag (base "last").
    """
    editor = Editor(model, check_pictures=False)
    for sample in samples():
        session = editor.open(sample.image, prompt=sample.prompt)
        first = session.drag(sample.points, mask=sample.mask)
        later = [
            session.drag(
                _moved_on(sample.points, 3.0 * move, session.source), mask=sample.mask, base="last"
            )
            for move in range(1, moves + 1)
        ]
        yield {
            "sample": sample.name,
            "first_ms": first.timings_ms["total"],
            "first_iterations": len(first.history.losses),
            "first_reached": first.reached,
            "went_ms": Spread.of([result.timings_ms["total"] for result in later]).to_dict(),
            "went_iterations": [len(result.history.losses) for result in later],
            "went_reached": sum(result.reached for result in later),
            "moves": moves,
        }


def _moved_on(points: Points, by_px: float, picture: Image) -> Points:
    """Move every target on in its direction, within the picture."""
    targets = []
    for (x, y), (target_x, target_y) in zip(points.handles, points.targets, strict=True):
        length = max(((target_x - x) ** 2 + (target_y - y) ** 2) ** 0.5, 1e-6)
        further_x = target_x + by_px * (target_x - x) / length
        further_y = target_y + by_px * (target_y - y) / length
        targets.append(
            (
                min(max(further_x, 0.0), picture.width - 1.0),
                min(max(further_y, 0.0), picture.height - 1.0),
            )
        )
    return Points(points.handles, tuple(targets))


def mouse_table(moves: Sequence[MouseMoves]) -> list[list[str]]:
    """Format the moves as a table, a header first."""
    header = ["sample", "first drag s", "iterations", "each move s", "iterations", "arrived"]
    rows = [
        [
            row["sample"],
            number(row["first_ms"] / 1e3),
            str(row["first_iterations"]),
            number(row["went_ms"]["median"] / 1e3),
            ", ".join(map(str, row["went_iterations"])),
            f"{row['went_reached']} of {row['moves']}",
        ]
        for row in moves
    ]
    return [header, *rows]

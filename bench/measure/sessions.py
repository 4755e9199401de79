"""Drags on one picture: the published code repeating everything, our first edit, and what comes after it.

    first      everything, as `Editor.edit` does
    again      a session's next drag on the same picture, other points or targets
    result     a drag on what the last one made
    stored     a new editor whose store has a folder: another process, the same picture
    stream     as again, with previews at their default pace

Pictures are compared with the first row's; those of `first`, `again`, `stored` and `stream` are the same, `result` begins elsewhere.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from dragnoise.engine import Editor, Image, Points, Store
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.methods import METHODS
from dragnoise.engine.session.result import EditResult
from dragnoise.engine.session.session import Base, Session

from ..report.record import number
from .rows import Row
from .timing import Spread

__all__ = ["follow_a_mouse", "mouse_table", "session_rows"]


class _Again:
    """A session that is ready before it is timed: its drags are what `Editor.edit` is asked for."""

    def __init__(self, model: Model, base: Base = "source") -> None:
        self.editor, self._base = Editor(model), base
        self.model = self.editor.model
        self._session: Session | None = None

    def edit(
        self, image: Image, points: Points, *, method: Any, progress: Any = None, **how: Any
    ) -> EditResult:
        if self._session is None:
            self._session = self.editor.open(image)
        self._session.prepare(how["config"])
        if self._base == "result":
            while self._session.image is not self._session.source:
                self._session.undo()
            self._session.drag(points, **(how | {"config": how["config"].replace(iterations=1)}))
        return self._drag(self._session, points, progress, how)

    def _drag(
        self, session: Session, points: Points, progress: Any, how: Mapping[str, Any]
    ) -> EditResult:
        return session.drag(points, base=self._base, progress=progress, **how)


class _Stream(_Again):
    def _drag(
        self, session: Session, points: Points, progress: Any, how: Mapping[str, Any]
    ) -> EditResult:
        *_, last = session.drag_stream(points, progress=progress, **how)
        assert last.result is not None
        return last.result


class _Stored:
    """Every edit in an editor whose store knows nothing but what lies in the folder."""

    def __init__(self, model: Model) -> None:
        self._folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._model = model
        self._editor = Editor(model, cache=self._store())
        self.model = self._editor.model

    def edit(self, image: Image, points: Points, **how: Any) -> EditResult:
        self._editor.edit(
            image,
            points,
            **(how | {"config": how["config"].replace(iterations=0), "progress": None}),
        )
        self._editor = Editor(self._model, cache=self._store())
        return self._editor.edit(image, points, **how)

    def _store(self) -> Store:
        return Store(folder=self._folder)


def session_rows() -> tuple[Row, ...]:
    """The first is what ratios to the first are taken to."""
    ours = METHODS["dragnoise"]
    again: Callable[[Model], Any] = _Again
    return (
        Row(
            "baseline",
            "the published code, everything repeated",
            partial(Editor, backend="eager"),
            METHODS["baseline"],
        ),
        Row("first", "our first edit", Editor, ours),
        Row("again", "the next drag on the same picture", again, ours),
        Row(
            "result",
            "a drag on the last one's picture, nothing inverted",
            partial(_Again, base="result"),
            ours,
        ),
        Row("stored", "the first edit of another process on the same picture", _Stored, ours),
        Row("stream", "the next drag, with previews", _Stream, ours),
    )


def follow_a_mouse(model: Model, moves: int = 5) -> Iterator[dict[str, Any]]:
    """On the embedded model's samples: a drag, then its target moves on by 3 pixels `moves` times, and the last drag goes on (base "last")."""
    editor = Editor(model)
    for sample in samples():
        session = editor.open(sample.image, prompt=sample.prompt)
        first = session.drag(sample.points, mask=sample.mask)
        source = session.source
        went: list[EditResult] = []
        for move in range(1, moves + 1):
            targets = tuple(
                _further(handle, target, 3.0 * move, source)
                for handle, target in zip(sample.points.handles, sample.points.targets, strict=True)
            )
            went.append(
                session.drag(Points(sample.points.handles, targets), mask=sample.mask, base="last")
            )
        yield {
            "sample": sample.name,
            "first_ms": first.timings_ms["total"],
            "first_iterations": len(first.history.losses),
            "first_reached": first.reached,
            "went_ms": Spread.of([result.timings_ms["total"] for result in went]).to_dict(),
            "went_iterations": [len(result.history.losses) for result in went],
            "went_reached": sum(result.reached for result in went),
            "moves": moves,
        }


def _further(
    handle: tuple[float, float], target: tuple[float, float], by: float, picture: Image
) -> tuple[float, float]:
    (x, y), (a, b) = handle, target
    length = max(((a - x) ** 2 + (b - y) ** 2) ** 0.5, 1e-6)
    return (
        min(max(a + by * (a - x) / length, 0.0), picture.width - 1.0),
        min(max(b + by * (b - y) / length, 0.0), picture.height - 1.0),
    )


def mouse_table(moves: list[dict[str, Any]]) -> list[list[str]]:
    header = ["sample", "first drag s", "iterations", "each move s", "iterations", "arrived"]
    rows = [
        [
            one["sample"],
            number(one["first_ms"] / 1e3),
            str(one["first_iterations"]),
            number(one["went_ms"]["median"] / 1e3),
            ", ".join(map(str, one["went_iterations"])),
            f"{one['went_reached']} of {one['moves']}",
        ]
        for one in moves
    ]
    return [header, *rows]

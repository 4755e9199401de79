"""One picture, many drags: what one drag has computed the next does not compute again.

Of a picture are kept its inversion, the text's keys and values, the encoder half and the middle block at the drag's step, what the skips contribute
to the decoder half, and the loop with its buffers and graph. A drag begins at a `Base`:

source     on the picture that the session was opened with, from the method's start: the same bits as `Editor.edit` on it.
result     on what the last drag made, from its optimum. The noisy latent is the source's, so nothing is inverted, and without an update the same
           picture comes out, bit for bit. Where the settings that an inversion depends on have changed, "inverted" instead.
inverted   on what the last drag made, as a picture like any other: encoded and inverted anew, which loses what an inversion loses. It is the source
           from then on.
last       the last drag goes on: on the picture it began with, from its optimum; handles that it had are where they are now, others where they
           are put. For targets that follow a mouse. Features and noise are still compared with those before its first update.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from .. import stages
from ..config import DragConfig, PersonaliseConfig
from ..diffusion.lora.adapter import Adapter, AdapterUse
from ..errors import CancelledError, ConfigError, DeadlineError, SessionError
from ..inputs.image import Image
from ..inputs.points import Points
from ..methods import METHODS, Method, Scene, Start, WarmStart
from ..pipelines.runtime import Runtime
from ..pipelines.source import Prepared, Source, depends_on, limit_of, ready, reference, scene_of
from ..run import Run
from ..stages import Iteration, LoopCache
from ..system.timers import Observer, StageTimes
from .file import SessionState, write_session
from .learn import Learner
from .request import Base, DragRequest, Turn, watched
from .result import EditResult, History, Progress, Record
from .state import LastDrag, State
from .stream import Event, PreviewPacer, Previews
from .undo import UndoStack

__all__ = ["Base", "Session"]

_READY = 2
"""Preparations that are kept: a person goes to and fro between two settings, or between source and result."""


class Session:
    """Made by `Editor.open`. One drag at a time: a second thread waits. config: the settings of drags that bring none."""

    def __init__(self, runtime: Runtime, begun: SessionState) -> None:
        self.config, self._used = begun.config, begun.used
        self._learner = Learner(runtime)
        self._runtime = runtime
        self._states = UndoStack(begun.states, begun.at, begun.undo_bytes)
        self._ready: dict[tuple[Source, tuple[Any, ...]], Prepared] = {}
        self._loops = LoopCache()
        self._busy = threading.Lock()
        self._owner: int | None = None
        self._cancelled = threading.Event()
        self._preview_s: float | None = None

    @property
    def image(self) -> Image:
        """What there is to see now."""
        return self._states.now.image

    @property
    def source(self) -> Image:
        """What drags from the source begin with."""
        return self._states.now.source.image

    def undo(self) -> Image:
        """The picture before the last drag, at once. Raises SessionError where there is none (any more, for `undo_bytes`)."""
        return self._states.back().image

    def redo(self) -> Image:
        """The picture that was undone last, at once. Raises SessionError where there is none."""
        return self._states.forth().image

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Everything that cannot be computed again, or not quickly, in one `.safetensors` file: see `Editor.restore`. Raises OutputError."""
        with self._alone():
            for (source, key), prepared in self._ready.items():
                source.trajectories[key] = prepared.trajectory
            states, at = self._states.all
            saved = SessionState(states, at, self.config, self._states.limit, self._used)
            return write_session(path, saved, self._runtime.model)

    def cancel(self) -> None:
        """From another thread: the drag that runs now raises CancelledError within one iteration or step."""
        self._cancelled.set()

    def prepare(
        self, config: DragConfig | None = None, *, progress: Progress | None = None
    ) -> None:
        """Everything that needs no points, so that the first drag finds it done."""
        asked = self._asked([(0, 0, 0, 0)], None, config, "dragnoise", "source", progress=progress)
        with self._alone(), self._runtime.working(self._used):
            self._prepared(self._states.now.source, asked, self._runtime.observers)

    @property
    def adapter(self) -> Adapter | None:
        """What is merged into the weights while this session works."""
        return self._used.adapter

    def use_adapter(self, adapter: Adapter | None, scale: float = 1.0) -> None:
        """Another adapter, or none, from the next drag on. The inversion is then another one: "last" cannot go on, "result" is inverted."""
        with self._alone():
            self._used = AdapterUse(adapter, scale)

    def personalise(
        self,
        config: PersonaliseConfig | None = None,
        *,
        progress: Progress | None = None,
        on_loss: Callable[[float], object] | None = None,
        timeout_s: float | None = None,
        **changes: Any,
    ) -> Adapter:
        """Learn the source (LoRA), so that it is inverted and denoised more faithfully; the adapter is worn from then on.

        config, or single settings of it: `personalise(steps=200, rank=8)`. With a cache, what was learned of the same picture, prompt and settings is
        found. Cancelled (`cancel`, `timeout_s`, or by what `progress` raises), the next call with the same settings goes on where this one ended.
        Raises ConfigError, CancelledError, DeadlineError.
        """
        asked, report = (
            (config or PersonaliseConfig()).replace(**changes),
            progress or (lambda stage, done, of: None),
        )
        check, source = self._check(timeout_s), self._states.now.source

        def on_step(done: int, loss: float) -> None:
            if on_loss is not None:
                on_loss(loss)
            check()
            report("personalise", done, asked.steps)

        with self._alone():
            found = self._learner.learn(source, asked, on_step)
            self._used = AdapterUse(found)
        return found

    def save_learning(self, path: str | os.PathLike[str]) -> Path | None:
        """What a cancelled `personalise` has learned so far, in a `.safetensors` file; None if there is nothing. Raises OutputError."""
        return self._learner.save(path)

    def resume_learning(self, path: str | os.PathLike[str]) -> None:
        """The next `personalise` with the same settings goes on with what `save_learning` wrote. Raises SessionError if it is another picture's."""
        self._learner.resume(path, self._states.now.source)

    def drag(
        self,
        points: Any,
        *,
        mask: Any = None,
        config: DragConfig | None = None,
        method: str | Method = "dragnoise",
        base: Base = "source",
        record: bool = False,
        progress: Progress | None = None,
        on_iteration: Callable[[Iteration], None] | None = None,
        timeout_s: float | None = None,
    ) -> EditResult:
        """Move what is under the handles to the targets; see `Editor.edit` for what it takes and gives.

        base: where it begins (see the module); points and mask are on the picture that it begins with. `result.settings` names the one used.
        timeout_s: seconds after which it is given up.
        Raises as `Editor.edit`; SessionError for a base that there is not; CancelledError, DeadlineError: the session is then as it was.
        """
        asked = self._asked(
            points,
            mask,
            config,
            method,
            base,
            record=record,
            wants_noise=record or on_iteration is not None,
            progress=progress,
            timeout_s=timeout_s,
        )
        watch = on_iteration or (lambda iteration: None)
        with closing(self._turns(asked)) as turns:
            return stages.driven(turns, lambda turn: watch(turn.iteration))

    def drag_stream(
        self,
        points: Any,
        *,
        mask: Any = None,
        config: DragConfig | None = None,
        base: Base = "source",
        previews: Previews = "auto",
        progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> Generator[Event, None, None]:
        """`drag`, to be watched: an `Event` for every iteration, the last with the result. Previews never change it.

        A preview is what the model expects of the picture at this iteration: the predicted clean latent, decoded (by `preview_vae`, if the editor has
        one). previews: every so many iterations, None for none; "auto": as many as cost at most 15 % of the loop.
        Closing the generator, as leaving the loop does, cancels the drag. Raises as `drag`.
        Until it ends, this session's other work is refused in this thread and waits in others; so, in all threads, does other edits' work on CUDA, or
        with another adapter: do not begin it in the loop's body.
        """
        pace = PreviewPacer(previews, self._preview_s)
        how: dict[str, Any] = {"progress": progress, "timeout_s": timeout_s, "pace": pace}
        asked = self._asked(points, mask, config, "dragnoise", base, **how)
        with closing(self._turns(asked)) as turns:
            result = yield from self._events(asked, turns)
        self._preview_s = pace.cost_s
        last = len(result.history.handles) - 1
        loss = float(result.history.losses[-1]) if len(result.history.losses) else float("nan")
        yield Event(last, result.points, loss, result=result)

    def _events(
        self, asked: DragRequest, turns: Generator[Turn, None, EditResult]
    ) -> Generator[Event, None, EditResult]:
        while True:
            try:
                turn = next(turns)
            except StopIteration as done:
                found: EditResult = done.value
                return found
            picture = asked.pace.taken(partial(self._preview, turn)) if asked.pace.due() else None
            handles = turn.prepared.frame.image_points(turn.iteration.handles)
            points = Points(handles, asked.points.targets)
            yield Event(turn.iteration.number, points, float(turn.iteration.loss), picture)

    def _preview(self, turn: Turn) -> Image:
        prepared, iteration = turn.prepared, turn.iteration
        model = prepared.place.model
        if self._runtime.preview_vae is not None:
            model = replace(model, vae=self._runtime.preview_vae, halves=None)
        constants, noise = prepared.start.constants, iteration.seen.noise
        pixels = turn.run(
            stages.preview, model, prepared.method, turn.scene, constants, iteration.variable, noise
        )
        return prepared.frame.image_of(pixels)

    def _asked(
        self,
        points: Any,
        mask: Any,
        config: DragConfig | None,
        method: str | Method,
        base: Base,
        *,
        record: bool = False,
        wants_noise: bool = False,
        progress: Progress | None = None,
        timeout_s: float | None = None,
        pace: PreviewPacer | None = None,
    ) -> DragRequest:
        row = METHODS.get(method) if isinstance(method, str) else method
        if row is None:
            raise ConfigError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
        if base not in get_args(Base):
            raise SessionError(f"there is no base {base!r}; known: {', '.join(get_args(Base))}")
        if timeout_s is not None and not timeout_s > 0:
            raise ConfigError(f"timeout_s must be above 0, got {timeout_s!r}")
        config, pairs, picture = config or self.config, Points.of(points), self.source
        pairs.check_inside(picture.width, picture.height)
        limit, report = limit_of(mask, picture, config), progress or (lambda stage, done, of: None)
        check, pace = self._check(timeout_s), pace or PreviewPacer(None)
        return DragRequest(
            pairs, limit, config, row, base, record, wants_noise, report, check, pace
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time. Raises SessionError where waiting would be for ever: inside a stream of the same thread."""
        mine = threading.get_ident()
        if self._owner == mine:
            raise SessionError(
                "this session is in the middle of a stream of this thread; end the loop, or close the stream, first"
            )
        with self._busy:
            self._owner = mine
            self._cancelled.clear()  # what was cancelled is over
            try:
                yield
            finally:
                self._owner = None

    def _check(self, timeout_s: float | None) -> Callable[[], None]:
        started = time.monotonic()

        def check() -> None:
            if self._cancelled.is_set():
                raise CancelledError("the drag was cancelled")
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                raise DeadlineError(
                    f"the drag did not end within {timeout_s:g} s; raise timeout_s or take fewer iterations"
                )

        return check

    def _turns(self, asked: DragRequest) -> Generator[Turn, None, EditResult]:
        """A drag, iteration by iteration. Only what ends well becomes the session's state."""
        with self._alone(), self._runtime.working(self._used):
            try:
                result, state = yield from self._dragging(asked)
            except BaseException:
                self._loops = LoopCache()  # frees its buffers and its graph
                raise
            self._states.add(state)
            return result

    def _dragging(self, asked: DragRequest) -> Generator[Turn, None, tuple[EditResult, State]]:
        runtime, config, device = self._runtime, asked.config, self._runtime.model.device
        times, total = StageTimes(device), StageTimes(device)
        observers: tuple[Observer, ...] = (*runtime.observers, times)
        state = self._states.now
        with total("total"):
            base, prepared = self._based(asked, state, observers)
            run, method, model = Run(observers, prepared.keeper), asked.method, prepared.place.model
            scene = scene_of(prepared, asked.points, asked.limit, config, asked.wants_noise)
            scene = replace(scene, origin=_origin(base, state.dragged, prepared, scene, observers))
            turns = stages.iterations(
                method, scene, runtime.poll_every, prepared=prepared.start, loops=self._loops
            )
            with closing(run.each("drag", turns)) as each:
                optimum = yield from watched(
                    asked.pace.turns(each),
                    asked,
                    partial(Turn, scene=scene, prepared=prepared, run=run),
                )
            constants, on_step = optimum.constants, asked.steps("propagate")
            final = run(
                stages.propagate, method, scene, constants, optimum.variable, on_step=on_step
            )
            pixels = run(stages.decode, model, final)
            image = prepared.frame.image_of(pixels)
        goes_on = base == "last" and state.dragged
        begun = goes_on.begun if goes_on else optimum.start
        dragged = LastDrag(
            prepared.key, begun, optimum.variable, scene.handles, optimum.handles[-1]
        )
        frame = prepared.frame
        result = EditResult(
            image=image,
            points=Points(frame.image_points(optimum.handles[-1]), asked.points.targets),
            reached=optimum.reached,
            history=History(
                optimum.losses.cpu().numpy(),
                np.array([frame.image_points(handles) for handles in optimum.handles]),
            ),
            timings_ms=times.ms | total.ms,
            settings=runtime.settings(method.name, config, base=base, adapter=self._used.key),
            record=Record(prepared.text, prepared.trajectory, final, pixels, scene, optimum)
            if asked.record
            else None,
            cache=runtime.numbers(),
        )
        return result, State(prepared.source, image, dragged)

    def _based(
        self, asked: DragRequest, state: State, observers: tuple[Observer, ...]
    ) -> tuple[Base, Prepared]:
        """Which base it is, and what is prepared there."""
        base, dragged, key = (
            asked.base,
            state.dragged,
            depends_on(asked.method, asked.config, self._used),
        )
        if base == "last" and (dragged is None or dragged.key != key):
            why = (
                "there is none"
                if dragged is None
                else "its steps, strength, guidance, adapter, method or parity were others"
            )
            raise SessionError(
                f"the last drag cannot go on: {why}; use base='source' or base='result'"
            )
        if base == "result" and dragged is not None and dragged.key != key:
            base = "inverted"
        source = state.source
        if base == "inverted" and dragged is not None:
            source = Source(state.image, source.prompt, negative_prompt=source.negative_prompt)
        return base, self._prepared(source, asked, observers)

    def _prepared(
        self, source: Source, asked: DragRequest, observers: tuple[Observer, ...]
    ) -> Prepared:
        key = (source, depends_on(asked.method, asked.config, self._used))
        found = self._ready.pop(key, None)
        if found is None or found.method is not asked.method:
            on_step = asked.steps("invert")
            found = ready(
                self._runtime,
                source,
                asked.method,
                asked.config,
                self._used,
                observers,
                on_step=on_step,
            )
        self._ready[key] = found
        while len(self._ready) > _READY:
            del self._ready[next(iter(self._ready))]
        return found


def _origin(
    base: Base,
    dragged: LastDrag | None,
    prepared: Prepared,
    scene: Scene,
    observers: tuple[Observer, ...],
) -> WarmStart | None:
    """Where the variable begins: None for the method's own start."""
    if dragged is None or base in ("source", "inverted"):
        return None
    if base == "result":
        return WarmStart(dragged.variable)
    begun = Start(prepared.start.constants, dragged.begun)
    seen = reference(prepared, begun, scene.wants_noise or scene.keep is not None, observers)
    return WarmStart(dragged.variable, seen, _now(scene.handles, dragged))


def _now(placed: Tensor, dragged: LastDrag) -> Tensor:
    """Where handles [N, 2] are: those of the last drag where it left them, others where they are placed."""
    found = [
        next(
            (
                now
                for before, now in zip(dragged.placed, dragged.now, strict=True)
                if torch.equal(before, handle)
            ),
            handle,
        )
        for handle in placed
    ]
    return torch.stack(found)

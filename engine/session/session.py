"""One picture, many drags: what one drag has computed, the next does not compute again.

A session remembers of a picture its inversion, the text's keys and values, the encoder half and the
middle block at the drag's step, what the skips contribute to the decoder half, and the loop with
its buffers and graph. A drag begins at a base:

    source     on the picture that the session was opened with, from the method's start: the same
               bits as `Editor.edit` on it.
    result     on what the last drag made, from its optimum. The noisy latent is the source's, so
               nothing is inverted, and without an update the same picture comes out, bit for bit.
               Where the settings that an inversion depends on have changed, "inverted" instead.
    inverted   on what the last drag made, as a picture like any other: encoded and inverted anew,
               which loses what an inversion loses. It is the source from then on.
    last       the last drag goes on: on the picture it began with, from its optimum. Handles that
               it had are where they are now, others where they are placed. For targets that follow
               a mouse. Features and noise are still compared with those before its first update.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar, Unpack

from torch import Tensor

from ..config import PersonaliseConfig, Settings, function, of_kind, seconds, shown
from ..diffusion.lora.adapter import Adapter, AdapterUse
from ..drag.loop import Iteration
from ..drag.method import AnyMethod
from ..errors import DeadlineError, ForkError, SessionError
from ..inputs.image import Image
from ..inputs.points import Point, Points, PointsLike, one_or_more
from ..pipelines.frames import check_live
from ..pipelines.runtime import Runtime
from ..pipelines.source import Source
from ..run import Run
from ..system.finite import check_loss
from ..system.memory import is_out_of_memory
from ..system.worker import Job
from .drag import Dragger, Moment
from .file import write_session
from .learn import PictureLearner
from .live import Hands, Live, LiveFrame
from .request import Base, DragOptions, DragRequest, row_of, settings_of, usually
from .result import EditResult, Progress, silent
from .state import SessionState, State, held_bytes
from .stream import Event, PreviewPacer, Previews, read_events
from .undo import UndoStack

__all__ = ["Base", "Session"]

T = TypeVar("T")


class Session:
    """A picture that is dragged on again and again; made by `Editor.open`.

    One drag at a time: a second thread waits.

    Attributes:
        config: The settings of drags that bring none.
    """

    def __init__(self, runtime: Runtime, state: SessionState, tenant: str = "") -> None:
        self.config: Settings = state.config
        self._runtime = runtime
        self._use = state.use
        self._undo = UndoStack(state.states, state.at, state.undo_bytes, held_bytes)
        self._cache = runtime.cache(tenant)
        self._learner = PictureLearner()
        self._prepared: tuple[Source, str, tuple[Tensor, ...]] | None = None
        self._preview_s: float | None = None
        self._busy = threading.Lock()
        self._owner: int | None = None
        self._process = os.getpid()
        self._job: Job[Any] | None = None

    @property
    def image(self) -> Image:
        """The picture that is seen now."""
        return self._undo.now.image

    @property
    def source(self) -> Image:
        """The picture that drags from the source begin with."""
        return self._undo.now.source.image

    @property
    def prompt(self) -> str:
        """What the source shows, as it was told."""
        return self._undo.now.source.prompt

    @property
    def negative_prompt(self) -> str:
        """What guidance draws away from."""
        return self._undo.now.source.negative_prompt

    @property
    def can_undo(self) -> bool:
        """Whether there is a picture before the one that is seen."""
        return self._undo.at > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is a picture after the one that is seen."""
        return self._undo.at < len(self._undo.states) - 1

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that is merged into the weights while this session works."""
        return self._use.adapter

    def undo(self) -> Image:
        """Show the picture before the last drag, at once, and return it.

        Raises:
            SessionError: Where there is none (any more, for `undo_bytes`).
        """
        return self._undo.undo().image

    def redo(self) -> Image:
        """Show the picture that was undone last, at once, and return it.

        Raises:
            SessionError: Where there is none.
        """
        return self._undo.redo().image

    def cancel(self) -> None:
        """End the work that runs now, from another thread: it raises CancelledError there."""
        job = self._job
        if job is not None:
            job.cancel()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the session to a `.safetensors` file that `Editor.restore` reads.

        The file has everything that cannot be computed again, or not quickly.

        Raises:
            OutputError: The file cannot be written there.
        """
        with self._alone():
            undo = self._undo
            state = SessionState(undo.states, undo.at, self.config, undo.limit_bytes, self._use)
            prepared = [] if self._prepared is None else [self._prepared]
            known = [entry for entry in prepared if any(s.source is entry[0] for s in undo.states)]
            return write_session(path, state, self._runtime.model, known)

    def use_adapter(self, adapter: Adapter | None, scale: float = 1.0) -> None:
        """Use another adapter, or none, from the next drag on.

        The inversion is then another one: "last" cannot go on, "result" is inverted.

        Raises:
            AdapterError: The adapter does not fit the model.
            ConfigError: The scale is no finite number.
        """
        use = AdapterUse(adapter, scale)
        self._runtime.adapters.check(use)
        with self._alone():
            self._use = use

    def wear(self, adapter: Adapter | None, scale: float = 1.0) -> None:
        """Call `use_adapter`, its new name."""
        warnings.warn("wear() is now called use_adapter()", DeprecationWarning, stacklevel=2)
        self.use_adapter(adapter, scale)

    def prepare(
        self,
        config: Settings | None = None,
        *,
        method: str | AnyMethod | None = None,
        preset: str | None = None,
        progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Compute everything that needs no points, so that the first drag finds it done.

        Args:
            config: The settings of the drags to come; None: the session's, or the method's.
            method: How they drag; methods that start alike need it only once. None: DragNoise.
            preset: Instead of both: a name in `PRESETS`.
            progress: Told of the long stages' steps.
            timeout_s: Seconds within which it must end, waiting included.

        Raises:
            CancelledError: It was cancelled.
            DeadlineError: It did not end within `timeout_s`.
        """
        row = row_of(method, preset)
        settings: Any = settings_of(row, config, self._defaults(row), preset)
        report = function("progress", progress) or silent

        def work(job: Job[None]) -> None:
            def on_step(done: int) -> None:
                job.check()
                report("invert", done, settings.active_steps)

            run = Run(self._runtime.observers, self._cache)
            source = self._undo.now.source
            dragger = self._dragger()
            prepared = dragger.prepare(run, source, row, settings, on_step)
            self._prepared = (source, dragger.key(row, settings), prepared.inversion)

        what = "the preparation"
        timeout_s = seconds("timeout_s", timeout_s)
        since_s = time.monotonic()
        with self._alone(timeout_s, what):
            self._do(work, self._use, what=what, timeout_s=timeout_s, since_s=since_s)

    def personalise(
        self,
        config: PersonaliseConfig | None = None,
        *,
        progress: Progress | None = None,
        on_loss: Callable[[float], object] | None = None,
        timeout_s: float | None = None,
        **changes: Any,
    ) -> Adapter:
        """Learn the source (LoRA), so that it is inverted and denoised more faithfully.

        The adapter is used from then on. With a cache, what was learned of the same picture, prompt
        and settings is found. After a cancelled training (`cancel`, `timeout_s`, or by what
        `progress` raises) the next call with the same settings goes on where it ended.

        Args:
            config: How to learn; single settings can be given by name: `personalise(steps=200)`.
            progress: Told of the steps.
            on_loss: Told of every step's loss.
            timeout_s: Seconds within which it must end, waiting included.

        Raises:
            ConfigError: A setting is out of its range.
            CancelledError: It was cancelled.
            DeadlineError: It did not end within `timeout_s`.
        """
        given = PersonaliseConfig() if config is None else config
        settings = of_kind("config", given, PersonaliseConfig).replace(**changes)
        report = function("progress", progress) or silent
        on_loss = function("on_loss", on_loss)
        timeout_s = seconds("timeout_s", timeout_s)
        source = self._undo.now.source

        def work(job: Job[Adapter]) -> Adapter:
            def on_step(done: int, loss: float) -> None:
                if on_loss is not None:
                    on_loss(loss)
                job.check()
                report("personalise", done, settings.steps)

            run = Run(self._runtime.observers, self._cache)
            return self._learner.learn(run, self._runtime.model, source, settings, on_step)

        since_s = time.monotonic()
        with self._alone(timeout_s, what="the training"):
            adapter = self._do(
                work,
                AdapterUse(),
                what="the training",
                timeout_s=timeout_s,
                since_s=since_s,
            )
            self._use = AdapterUse(adapter)
            self._learner.forget()
        return adapter

    def save_learning(self, path: str | os.PathLike[str]) -> Path | None:
        """Write what a cancelled `personalise` has learned so far; None if there is nothing.

        Raises:
            OutputError: The file cannot be written there.
        """
        return self._learner.save(path, self._runtime.model)

    def resume_learning(self, path: str | os.PathLike[str]) -> None:
        """Read what `save_learning` wrote: the next `personalise` with the same settings goes on.

        Raises:
            SessionError: For a file that is damaged, or of another picture.
        """
        self._learner.resume(path, self._runtime.model, self._undo.now.source)

    def drag(
        self,
        points: PointsLike,
        *,
        base: Base = "source",
        record: bool = False,
        on_iteration: Callable[[Iteration[Any]], None] | None = None,
        **options: Unpack[DragOptions],
    ) -> EditResult:
        """Move what is under the handles to the targets; see `Editor.edit`.

        Args:
            points: In any form that `Points.of` takes, on the picture that the drag begins with.
            base: Where it begins (see the module). `result.settings` names the one used.
            record: Keep every intermediate.
            on_iteration: Shown every forward pass of the drag, in the worker's thread.
            options: mask, grip, config, method, preset, progress, timeout_s (seconds, waiting
                included), priority (higher runs first).

        Raises:
            SessionError: For a base that there is not.
            CancelledError: The session is then as it was.
            DeadlineError: The session is then as it was.
        """
        request = DragRequest.of(
            points,
            self.source,
            self._defaults(row_of(options.get("method"), options.get("preset"))),
            base=base,
            record=record,
            on_iteration=on_iteration,
            **options,
        )
        since_s = time.monotonic()
        with self._alone(request.timeout_s):
            return self._dragged(request, since_s)

    def drag_stream(
        self,
        points: PointsLike,
        *,
        base: Base = "source",
        previews: Previews = "auto",
        **options: Unpack[DragOptions],
    ) -> Generator[Event, None, None]:
        """Drag, and yield an `Event` for every iteration, the last with the result.

        A preview is what the model expects of the picture at this iteration: the predicted clean
        latent, decoded (by `preview_vae`, if the editor has one). Previews never change the result.

        The drag does not wait for its reader, and holds nothing meanwhile but this session: its
        other work is refused in this thread and waits in others. Closing the generator, as leaving
        the loop does, cancels the drag; the session is then as it was.

        Args:
            points: As for `drag`.
            base: As for `drag`.
            options: As for `drag`.
            previews: Every so many iterations, None for none; "auto": as many as cost at most 15 %
                of the loop.

        Raises:
            SessionError: For a base that there is not.
            CancelledError: The session is then as it was.
            DeadlineError: The session is then as it was.
        """
        pacer = PreviewPacer(previews, self._preview_s)
        defaults = self._defaults(row_of(options.get("method"), options.get("preset")))
        request = DragRequest.of(points, self.source, defaults, base=base, **options)
        return self._stream(request, pacer)

    def live(
        self,
        handles: Point | Sequence[Point],
        *,
        base: Base = "source",
        on_frame: Callable[[LiveFrame], object] | None = None,
        **options: Unpack[DragOptions],
    ) -> Live:
        """Take hold of the picture at the handles, to let it follow a pointer.

        Of a model that needs a second for a frame, frames come once a second. It begins to prepare
        at once. See `Live`; the drag holds this session until it is closed.

        Args:
            handles: One (x, y) in image pixels, or several.
            base: As for `drag`; "source" and "result".
            on_frame: Called with every frame, in the worker's thread: it should be quick.
            options: As for `drag`; "live" is the preset where neither one nor a method is given.
                `timeout_s` is how long to wait for the session.

        Raises:
            SessionError: The session is in use by this thread, or the base is another.
            ConfigError: The method cannot follow a pointer.
            PointError: A handle lies outside the picture.
        """
        if base not in ("source", "result"):
            raise SessionError(f"a live drag begins at 'source' or 'result', not {shown(base)}")
        begun = one_or_more(handles)
        how = usually(options, "live")
        row = row_of(how.get("method"), how.get("preset"))
        still = Points(begun, begun)
        request = DragRequest.of(still, self.source, self._defaults(row), base=base, **how)
        check_live(request.method, request.settings)
        on_frame = function("on_frame", on_frame)

        def submit(work: Callable[[Job[None]], None]) -> Job[None]:
            return self._runtime.submit(
                work, self._use, what="the frame", priority=request.priority, nested=False
            )

        def next_request(points: Points, given: Mapping[str, Any]) -> DragRequest:
            row = row_of(given.get("method"), given.get("preset"))
            grip = request.grip if row.grips else None
            mine = {"mask": request.mask, "grip": grip, "base": base}
            return DragRequest.of(points, self.source, self._defaults(row), **mine | dict(given))

        held = ExitStack()
        held.enter_context(self._alone(request.timeout_s, "the live drag"))
        try:
            hands = Hands(submit, next_request, self._dragged, self._undo.add)
            return Live(request, self._dragger(), self._undo.now, hands, held, on_frame)
        except BaseException:
            held.close()
            raise

    def _stream(self, request: DragRequest, pacer: PreviewPacer) -> Generator[Event, None, None]:
        def work(
            job: Job[tuple[EditResult, State]], tell: Callable[[Event], None]
        ) -> tuple[EditResult, State]:
            def each(moment: Moment) -> None:
                iteration = moment.iteration
                loss = check_loss("drag", iteration.number, float(iteration.loss))
                preview = None
                if pacer.is_due():
                    dragger = self._dragger()
                    preview = pacer.make(lambda: dragger.preview(request.method, moment))
                handles = moment.prepared.frame.image_points(iteration.handles)
                points = Points(handles, request.points.targets)
                tell(Event(iteration.number, points, loss, preview))

            return self._drag(request, job, each, pacer)

        since_s = time.monotonic()
        with self._alone(request.timeout_s):
            result, state = yield from read_events(
                lambda watched: self._submit(
                    watched,
                    self._use,
                    what="the drag",
                    priority=request.priority,
                    timeout_s=request.timeout_s,
                    since_s=since_s,
                ),
                work,
            )
            self._preview_s = pacer.cost_s
            self._undo.add(state)
        yield Event.last(result)

    def _dragged(self, request: DragRequest, since_s: float | None = None) -> EditResult:
        """Do a drag, and show its result. The caller holds the session."""

        def each(moment: Moment) -> None:
            if request.on_iteration is not None:
                request.on_iteration(moment.iteration)

        result, state = self._do(
            lambda job: self._drag(request, job, each),
            self._use,
            what="the drag",
            priority=request.priority,
            timeout_s=request.timeout_s,
            since_s=since_s,
        )
        self._undo.add(state)
        return result

    def _drag(
        self,
        request: DragRequest,
        job: Job[Any],
        each: Callable[[Moment], None],
        pacer: PreviewPacer | None = None,
    ) -> tuple[EditResult, State]:
        """Do a drag, in the worker's thread. Only what ends well becomes the session's state."""
        try:
            return self._dragger().drag(request, self._undo.now, job, each, pacer)
        except BaseException as error:
            if is_out_of_memory(error):
                self._runtime.loops.clear()  # the next one may need the room
            raise

    def _defaults(self, method: AnyMethod) -> Settings:
        """Return the settings of drags with a method that bring none."""
        return self._runtime.defaults(method, self.config)

    def _dragger(self) -> Dragger:
        return Dragger(self._runtime, self._cache, self._use)

    @contextmanager
    def _alone(self, timeout_s: float | None = None, what: str = "the drag") -> Iterator[None]:
        """Hold the session while something of it is going on.

        Raises:
            SessionError: Where waiting would be for ever: inside a stream of the same thread, or in
                a callback of the work itself.
            ForkError: It was in use in the process that this one was forked from.
            DeadlineError: Where the wait takes longer than `timeout_s`.
        """
        caller = threading.get_ident()
        inside = self._runtime.worker.is_current_thread() and self._busy.locked()
        if self._owner == caller or inside:
            raise SessionError(
                "this session is in the middle of a stream of this thread; end the loop, or close "
                "the stream, first"
            )
        if self._process != os.getpid() and self._busy.locked():
            raise ForkError(
                "this session was in use when the process was forked, and whoever used it is in "
                "the other one; open a session in this process"
            )
        wait_s = -1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
        taken: list[bool] = []
        try:
            # Taken and noted in one call of C: an interrupt between the two would hold it for ever.
            taken.extend(starmap(self._busy.acquire, [(True, wait_s)]))
            if not taken[0]:
                raise DeadlineError(
                    f"{what} did not begin within {timeout_s:g} s: the session was busy; "
                    "raise timeout_s"
                )
            self._owner = caller
            self._process = os.getpid()
            yield
        finally:
            if taken == [True]:
                self._owner = None
                self._job = None
                self._busy.release()

    def _submit(self, work: Callable[[Job[T]], T], use: AdapterUse, **how: Any) -> Job[T]:
        job = self._runtime.submit(work, use, **how)
        self._job = job
        return job

    def _do(self, work: Callable[[Job[T]], T], use: AdapterUse, **how: Any) -> T:
        return self._submit(work, use, **how).result()

"""A drag that follows the pointer: the newest target is answered, and nothing queues.

    move(target) ---> the worker: one frame at a time ---> frame(), next_frame(), on_frame
                      of the newest target there is

A pointer moves a hundred times a second and a frame takes longer, so targets that were overtaken
get none. Each frame begins at the source, with the whole way, so none drifts. Between two frames of
one drag the worker does what else waits: nobody is starved, and a reader that is slow holds nothing
but this session. The last frame is not what such a drag is for: `release` drags once more by a
preset that takes its time.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Self, TypeAlias

from ..errors import DeadlineError, SessionError
from ..inputs.image import Image
from ..inputs.points import Point, Points, one_or_more
from ..pipelines.frames import FrameMaker
from ..pipelines.pipeline import Prepared
from ..pipelines.pixels import warped_image
from ..run import Run
from ..system.finite import check_finite
from ..system.timers import StageTimes
from ..system.worker import Job
from .drag import Dragger
from .request import DragRequest, usually
from .result import EditResult
from .state import LastDrag, State

__all__ = ["Kind", "Live", "LiveFrame", "Targets"]

Kind: TypeAlias = Literal["warped", "model", "refined"]
"""Pixels that were moved; what the model makes of the targets; what a drag made after release."""

Targets: TypeAlias = Point | Sequence[Point]
"""One (x, y) in image pixels where there is one handle, else one a handle."""


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A picture of a drag that goes on.

    Attributes:
        number: Of the move that it answers, from 1; later frames have higher ones.
        kind: What made it.
        image: The picture, in the source's size.
        points: The handles with the targets that it answers, in image pixels.
        latency_ms: Milliseconds from the move to the picture.
        timings_ms: Milliseconds: "total" of a model's frame, by stage of a refined one.
    """

    number: int
    kind: Kind
    image: Image
    points: Points
    latency_ms: float
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Move:
    """A target that was asked for: its number, what it is, and when it came (perf_counter)."""

    number: int
    points: Points
    since_s: float

    def ms(self) -> float:
        """Return the milliseconds since it came."""
        return (time.perf_counter() - self.since_s) * 1e3


@dataclass(frozen=True, eq=False)
class Hands:
    """A session's own functions, as far as a live drag uses them.

    Attributes:
        submit: Hands a frame to the worker, where it takes its turn.
        request: (points, options of a drag) -> the drag that follows the live one, checked.
        drag: Drags, and shows the result.
        show: Shows another state; the one before can be had again by `undo`.
    """

    submit: Callable[[Callable[[Job[None]], None]], Job[None]]
    request: Callable[[Points, Mapping[str, Any]], DragRequest]
    drag: Callable[[DragRequest], EditResult]
    show: Callable[[State], object]


class Live:
    """A drag that follows the pointer; made by `Session.live`.

    It holds its session until it is closed: leaving its `with`, `release` and `keep` close it.
    """

    def __init__(
        self,
        request: DragRequest,
        dragger: Dragger,
        state: State,
        hands: Hands,
        held: ExitStack,
        on_frame: Callable[[LiveFrame], object] | None = None,
    ) -> None:
        self._request = request
        self._dragger = dragger
        self._size = (state.image.width, state.image.height)
        self._source = dragger.base_of(request, state)[1]
        self._hands = hands
        self._held = held
        self._on_frame = on_frame
        self._prepared: Prepared[Any] | None = None
        self._maker: FrameMaker | None = None
        self._wanted: _Move | None = None
        self._tried = 0
        self._latest: LiveFrame | None = None
        self._read = 0
        self._error: BaseException | None = None
        self._busy = True  # a frame is being made, or is about to be
        self._job: Job[None] | None = None
        self._closed = False
        self._waiting: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._fly()

    @property
    def handles(self) -> tuple[Point, ...]:
        """The handles, (x, y) in image pixels."""
        return self._request.points.handles

    def move(self, targets: Targets) -> int:
        """Let the picture follow to these targets, and return the move's number, from 1.

        It returns at once. A frame that is being made is finished; of moves that come meanwhile
        the last is answered.

        Raises:
            PointError: A target lies outside the picture, or there are more or fewer than handles.
            SessionError: The drag is closed.
        """
        points = self._points(targets)
        with self._lock:
            self._check_open()
            number = 1 if self._wanted is None else self._wanted.number + 1
            self._wanted = _Move(number, points, time.perf_counter())
            rested, self._busy = not self._busy, True
        if rested:
            self._fly()
        return number

    def warped(self) -> LiveFrame:
        """Return the picture with its pixels moved to the newest targets: at once, without a model.

        It is made in the caller's thread, from the source like every frame.

        Raises:
            SessionError: Nothing has moved, or the drag is closed.
        """
        move = self._last_move()
        request = self._request
        settings = request.settings
        image = warped_image(
            self._source.image,
            move.points,
            request.mask if settings.lam > 0 else None,
            request.grip,
            settings.grip_px,
            settings.fit,
        )
        return LiveFrame(move.number, "warped", image, move.points, move.ms())

    def frame(self, timeout_s: float | None = None) -> LiveFrame:
        """Return the newest frame of the model, once: wait for one that was not returned yet.

        Args:
            timeout_s: Seconds to wait at most.

        Raises:
            SessionError: Nothing has moved since the last one, or the drag is closed.
            DeadlineError: There was none within `timeout_s`.
            DragnoiseError: Whatever ended the frame that was being made.
        """
        came: queue.SimpleQueue[None] = queue.SimpleQueue()
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._waiting.append(partial(came.put, None))  # before the look: none is missed
            frame = self._take()
            if frame is not None:
                return frame
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            try:
                came.get(timeout=left_s)
            except queue.Empty:
                raise DeadlineError(
                    f"there was no frame within {timeout_s:g} s; raise timeout_s"
                ) from None

    async def next_frame(self) -> LiveFrame:
        """Return what `frame` does, without holding a thread while waiting."""
        loop = asyncio.get_running_loop()
        while True:
            came = asyncio.Event()
            self._waiting.append(partial(_call_soon, loop, came.set))
            frame = self._take()
            if frame is not None:
                return frame
            await came.wait()

    def release(self, **options: Any) -> EditResult:
        """Drag to the last targets by a preset that takes its time, and close.

        The result becomes the session's picture; `Session.undo` goes back. A frame that is being
        made is dropped.

        Args:
            options: `preset` ("fast" where none, nor a method or a config, is given), `method`,
                `config`, `progress`, `timeout_s`, `priority`, as `Session.drag` takes them.

        Raises:
            SessionError: Nothing has moved, or the drag is closed.
            CancelledError: The session is then as it was.
        """
        move = self._last_move()
        request = self._hands.request(move.points, usually(options, "fast"))
        self._land()
        try:
            result = self._hands.drag(request)
        finally:
            self.close()
        if self._on_frame is not None:
            self._on_frame(
                LiveFrame(
                    number=move.number,
                    kind="refined",
                    image=result.image,
                    points=result.points,
                    latency_ms=move.ms(),
                    timings_ms=result.timings_ms,
                )
            )
        return result

    def keep(self) -> Image:
        """Make the newest frame the session's picture, close, and return it.

        Raises:
            SessionError: There is no frame, or the drag is closed.
        """
        self._check_open()
        self._land()
        frame, prepared = self._latest, self._prepared
        if frame is None or prepared is None:
            raise SessionError("there is no frame to keep; move, and wait for one, first")
        variable = prepared.start.variable
        handles, targets = prepared.frame.points(frame.points)
        key = self._dragger.key(self._request.method, self._request.settings)
        drag = LastDrag(
            key=key,
            inversion=prepared.inversion,
            begun=variable,
            variable=variable,
            placed=handles.to(prepared.device),
            now=targets.to(prepared.device),
        )
        self._hands.show(State(prepared.source, frame.image, drag))
        self.close()
        return frame.image

    def close(self) -> None:
        """End the drag; the session is then free, and as it was unless a picture was kept."""
        self._land()
        self._held.close()
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # The work: in the worker's thread.

    def _work(self, job: Job[None]) -> None:
        """Prepare the source, and make a frame of the newest move where there is one."""
        run = Run(self._dragger.runtime.observers, self._dragger.cache)
        maker = self._maker or self._prepare(run, job)
        with self._lock:
            move = self._wanted
            if move is None:
                return
            self._tried = move.number
        times = StageTimes(self._dragger.runtime.model.device)
        with times("total"), run.watched("frame"):
            pixels = check_finite("decode", maker(move.points, lambda done: job.check()))
            assert self._prepared is not None
            image = self._prepared.frame.image_of(pixels)
        frame = LiveFrame(move.number, "model", image, move.points, move.ms(), times.ms)
        self._latest = frame
        if self._on_frame is not None:
            self._on_frame(frame)

    def _prepare(self, run: Run, job: Job[None]) -> FrameMaker:
        request = self._request
        prepared = self._dragger.prepare(
            run, self._source, request.method, request.settings, request.steps("invert", job)
        )
        scene = prepared.scene(request.points, request.mask, request.settings, grip=request.grip)
        self._prepared = prepared
        self._maker = FrameMaker(self._dragger.runtime, request.method, prepared, scene)
        return self._maker

    # The moves and their frames: from whatever thread.

    def _fly(self) -> None:
        """Hand in the next frame."""
        with self._lock:
            if self._closed:
                self._busy = False
                return
            job = self._job = self._hands.submit(self._work)
        job.when_ended(lambda: self._landed(job))

    def _landed(self, job: Job[None]) -> None:
        """Note the end of a frame, tell who waits, and make the next where something has moved."""
        with self._lock:
            self._job = None
            wanted = 0 if self._wanted is None else self._wanted.number
            if job.error is not None and not self._closed:
                self._error = job.error
                self._tried = wanted  # who reads the error may move again
            self._busy = again = wanted > self._tried
        if again:
            self._fly()
        self._tell()

    def _land(self) -> None:
        """Take no more moves, and wait for the end of what is being done."""
        with self._lock:
            self._closed = True
            job = self._job
        if job is not None:
            job.cancel()
            job.wait()

    def _tell(self) -> None:
        while self._waiting:
            self._waiting.pop()()

    def _take(self) -> LiveFrame | None:
        """Return the newest frame if it was not returned before; None: one is being made."""
        with self._lock:
            frame = self._latest
            if frame is not None and frame.number > self._read:
                self._read = frame.number
                return frame
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._check_open()
            if self._wanted is None or not self._busy:
                raise SessionError("nothing has moved since the last frame; move first")
        return None

    def _last_move(self) -> _Move:
        with self._lock:
            self._check_open()
            if self._wanted is None:
                raise SessionError("nothing has moved, so there is no drag to do; move first")
            return self._wanted

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("this live drag is closed; open another with Session.live")

    def _points(self, targets: Targets) -> Points:
        """Return the handles with targets. Raises PointError."""
        points = Points(self.handles, one_or_more(targets))
        points.check_inside(*self._size)
        return points


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call something in a loop's own thread, unless the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)

"""A connection that drags a session: moves come in, frames go out, and nothing queues.

    reader    takes one message after the other, and does what it says
    follower  waits for the model's newest frame, from grab to release
    sender    sends what waits in the outbox; where the client reads slowly it stands still there,
              and the frame that waits is replaced by newer ones

The session is held from grab to release, keep or cancel, or until the client has gone.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..errors import CancelledError, DragnoiseError, SessionError
from ..session.live import Live, LiveFrame
from ..session.result import EditResult
from .documents import Result
from .drags import progress, result_of
from .frames import Frame
from .held import Held
from .log import log, log_crash, short
from .messages import Cancel, Grab, Keep, Move, Ping, Release, message_of
from .outbox import Outbox, Unsent
from .pictures import encoded
from .refusals import Refusal, of_error
from .service import Service
from .work import Work

__all__ = ["Pointer"]

_FREE_S = 10.0
"""Seconds that a grab waits for the session's own end of what was before."""

_CLOSE_S = 2.0
"""Seconds that a client has to take in the last messages."""

_REMEMBERED = 4096
"""Moves that may still be answered."""


class Hold:
    """A live drag of a connection, and the moves that may still be answered.

    Attributes:
        live: The engine's.
        asked: How it was taken.
        holding: Lets the session go.
        seq: Of the newest move; -1 before the first.
        moved: Set whenever there is a new one.
        follower: Waits for its frames.
    """

    def __init__(self, live: Live, asked: Grab, holding: AsyncExitStack) -> None:
        self.live = live
        self.asked = asked
        self.holding = holding
        self.seq = -1
        self.moved = asyncio.Event()
        self.follower: asyncio.Task[None] | None = None
        self._number = 0
        self._moves: dict[int, tuple[int, float]] = {}

    def move(self, asked: Move, arrived_s: float) -> None:
        """Hand a move on; in a thread. Its frame may come before this returns.

        Raises:
            PointError: It lies outside the picture.
        """
        number = self._number + 1  # as the engine counts
        self._moves[number] = (asked.seq, arrived_s)
        try:
            self._number = self.live.move(asked.targets)
        except BaseException:
            del self._moves[number]
            raise
        self.seq = asked.seq
        if len(self._moves) > _REMEMBERED:
            del self._moves[min(self._moves)]

    def unsent(self, frame: LiveFrame) -> Unsent:
        """Return a frame as it is to be sent; forget the moves before its own."""
        seq, arrived_s = self._moves[frame.number]
        for number in [number for number in self._moves if number < frame.number]:
            del self._moves[number]
        return Unsent(frame, seq, arrived_s, self.asked.format, self.asked.quality)


class Pointer:
    """One connection to one session.

    Args:
        service: That holds the session.
        held: The session.
        socket: The connection, accepted.
    """

    def __init__(self, service: Service, held: Held, socket: WebSocket) -> None:
        self._service = service
        self._held = held
        self._socket = socket
        self._outbox = Outbox()
        self._hold: Hold | None = None
        self._release: asyncio.Task[None] | None = None
        self._work: Work[EditResult] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._letting_go = asyncio.Lock()
        self._close_code = 1000
        self._told_to_go = asyncio.Event()
        self._gone = asyncio.Event()

    async def serve(self) -> None:
        """Serve the connection until one side ends it; then the session is free, as it is."""
        await self._take_over()
        self._outbox.text("ready", state=self._state())
        tasks = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._send()),
            asyncio.create_task(self._told_to_go.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            try:
                if self._answering is not None:
                    await asyncio.wait({self._answering})
                await self._let_go(Refusal("cancelled", "the client has gone"))
            finally:
                if self._held.pointer is self:
                    self._held.pointer = None
                self._gone.set()
                self._held.touch()
            self._note(ended)
            await self._close()

    async def give_up(self, refusal: Refusal, code: int) -> None:
        """Tell the client why, close the connection, and wait until the session is free."""
        with suppress(Refusal):
            self._outbox.error(refusal)
        self._close_code = code
        self._told_to_go.set()
        await self._gone.wait()

    async def _take_over(self) -> None:
        """Be the session's only connection."""
        while (other := self._held.pointer) is not None:
            await other.give_up(Refusal("busy", "another connection has taken over"), 4409)
        self._held.pointer = self

    async def _close(self) -> None:
        """Send what is left to say, and close; a client that does not read is not waited for."""
        if self._socket.client_state is not WebSocketState.CONNECTED:
            return
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                for text in self._outbox.take_rest():
                    await self._socket.send_json(text)
                await self._socket.close(self._close_code)

    def _note(self, ended: list[Any]) -> None:
        """Log what ended the connection, where it was neither side."""
        usual = (WebSocketDisconnect, asyncio.CancelledError, Refusal, OSError, RuntimeError)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, usual):
                log_crash(error)
                self._close_code = 1011
        log("left", session=short(self._held.id), dropped=self._outbox.dropped)

    # What goes out.

    async def _send(self) -> None:
        while True:
            item = await self._outbox.next()
            if isinstance(item, Mapping):
                await self._socket.send_json(item)
            else:
                await self._send_frame(item)

    async def _send_frame(self, unsent: Unsent) -> None:
        frame, format = unsent.frame, unsent.format
        content = await self._service.threads.quick(
            partial(encoded, frame.image, format, unsent.quality)
        )
        ms = (time.perf_counter() - unsent.arrived_s) * 1e3
        await self._socket.send_bytes(Frame(frame.kind, format, unsent.seq, ms, content).packed())
        self._service.metrics.frame(ms)

    async def _follow(self, hold: Hold) -> None:
        """Put every newest frame of the model into the outbox; an error of it lets go."""
        while True:
            await hold.moved.wait()
            hold.moved.clear()
            try:
                while True:
                    frame = await hold.live.next_frame()
                    self._outbox.frame(hold.unsent(frame))
            except SessionError:
                continue  # nothing has moved since
            except (DragnoiseError, CancelledError, TimeoutError, RuntimeError) as error:
                refusal = of_error(error)
                break
        hold.follower = None  # it need not wait for itself
        await self._let_go()
        self._outbox.error(refusal)  # who hears it can grab again

    # What comes in.

    async def _read(self) -> None:
        while True:
            text = await self._text()
            # What is begun is ended, whenever the client goes: nothing is half done.
            self._answering = asyncio.create_task(self._answer(text))
            await asyncio.shield(self._answering)

    async def _text(self) -> str:
        """Wait for the next message of text."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        return message.get("text") or ""

    async def _answer(self, text: str) -> None:
        """Do what a message says, or say why not."""
        try:
            await self._do(text)
        except (Refusal, DragnoiseError, CancelledError, TimeoutError) as error:
            self._outbox.error(of_error(error))

    async def _do(self, text: str) -> None:
        self._held.touch()
        match message_of(text):
            case Move() as move:
                await self._move(move, time.perf_counter())
            case Grab() as grab:
                await self._grab(grab)
            case Release() as release:
                self._begin_release(release)
            case Keep():
                await self._keep()
            case Cancel():
                await self._let_go(Refusal("cancelled", "let go"))
                self._outbox.text("state", state=self._state())
            case Ping() as ping:
                self._outbox.text("pong", at=ping.at)

    async def _grab(self, asked: Grab) -> None:
        if self._release is not None:
            raise Refusal("busy", "a release is running; cancel it, or wait for its result")
        await self._let_go()
        if self._service.queue.is_draining:
            self._service.queue.check_room()
        held = self._held
        async with AsyncExitStack() as holding:
            await holding.enter_async_context(held.used("a live drag"))
            live = await self._service.threads.long(
                partial(
                    held.session.live,
                    asked.handles,
                    base=asked.base,
                    preset=asked.preset,
                    mask=held.mask,
                    grip=held.grip,
                    timeout_s=_FREE_S,
                )
            )
            hold = self._hold = Hold(live, asked, holding.pop_all())
        hold.follower = asyncio.create_task(self._follow(hold))
        self._outbox.text("grabbed")

    async def _move(self, asked: Move, arrived_s: float) -> None:
        hold = self._hold
        if hold is None:
            if self._release is None:
                raise Refusal("session", "nothing is held; grab first")
            return  # the pointer goes on while the release runs
        if asked.seq <= hold.seq:
            return  # overtaken
        await self._service.threads.quick(partial(hold.move, asked, arrived_s))
        hold.moved.set()

    async def _keep(self) -> None:
        hold = self._held_now()
        await self._service.threads.long(hold.live.keep)
        self._held.changed()
        await self._let_go()
        self._outbox.text("state", state=self._state())

    def _begin_release(self, asked: Release) -> None:
        hold = self._held_now()
        if hold.seq < 0:
            raise Refusal("session", "nothing has moved, so there is no drag to do; move first")
        self._service.queue.check_room()
        self._hold = None
        self._release = asyncio.create_task(self._do_release(hold, asked))

    async def _do_release(self, hold: Hold, asked: Release) -> None:
        """Drag to the last targets, and say what came of it."""
        loop = asyncio.get_running_loop()
        preset = asked.preset or self._service.settings.preset
        since_s = time.perf_counter()

        def report(stage: str, done: int, of: int) -> None:
            loop.call_soon_threadsafe(self._report, progress(stage, done, of))

        call = partial(
            _released,
            hold.live,
            preset=preset,
            progress=report,
            timeout_s=self._service.settings.timeout_s,
        )
        try:
            await _stop(hold)
            service, held = self._service, self._held
            self._work = Work(service.queue, service.threads, held, hold.holding, call)
            result = await self._work.result()
        except (Refusal, DragnoiseError, CancelledError, TimeoutError, RuntimeError) as error:
            refusal = of_error(error)
            if refusal.code == "internal":
                log_crash(error)
            if refusal.code != "cancelled":
                self._outbox.error(refusal)
                self._outbox.text("state", state=self._state())
        else:
            self._held.changed()
            about = result_of(
                self._held, result, preset, hold.asked.base, time.perf_counter() - since_s
            )
            self._tell_released(hold, result, about, since_s)
        finally:
            self._release = self._work = None

    def _tell_released(self, hold: Hold, result: EditResult, about: Result, since_s: float) -> None:
        refined = LiveFrame(
            number=0,
            kind="refined",
            image=result.image,
            points=result.points,
            latency_ms=about.seconds * 1e3,
        )
        asked = hold.asked
        self._outbox.frame(Unsent(refined, hold.seq, since_s, asked.format, asked.quality))
        self._outbox.text("result", **about.model_dump())
        self._outbox.text("state", state=self._state())

    def _report(self, about: Mapping[str, Any]) -> None:
        if self._release is not None:
            with suppress(Refusal):
                self._outbox.text("progress", **about)

    async def _let_go(self, reason: Refusal | None = None) -> None:
        """Hold nothing any more; a release that runs is cancelled."""
        release = self._release
        if release is not None:
            while not release.done():
                if self._work is not None:
                    self._work.cancel(reason or Refusal("cancelled", "let go"))
                await asyncio.wait({release}, timeout=0.02)
        async with self._letting_go:
            hold, self._hold = self._hold, None
            if hold is not None:
                await _stop(hold)
                await self._service.threads.long(hold.live.close)
                await hold.holding.aclose()

    def _held_now(self) -> Hold:
        if self._hold is None:
            raise Refusal("session", "nothing is held; grab first")
        return self._hold

    def _state(self) -> dict[str, Any]:
        return self._held.state().model_dump()


def _released(live: Live, **options: Any) -> EditResult:
    """Do a live drag's release; close the drag, whatever comes of it."""
    try:
        return live.release(**options)
    finally:
        live.close()


async def _stop(hold: Hold) -> None:
    """Follow the model's frames no more."""
    follower, hold.follower = hold.follower, None
    if follower is not None:
        follower.cancel()
        await asyncio.wait({follower})

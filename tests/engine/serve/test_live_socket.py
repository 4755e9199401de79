"""The WebSocket: moves come in, frames go out, and nothing queues."""

import asyncio
import io
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from starlette.websockets import WebSocketState

from dragnoise.engine import Image, Points
from dragnoise.engine.serve import Client, ServeSettings, ServiceError
from dragnoise.engine.serve.client import LiveConnection, RemoteSession, Said
from dragnoise.engine.serve.frames import Frame
from dragnoise.engine.serve.held import Held
from dragnoise.engine.serve.outbox import Outbox, Unsent
from dragnoise.engine.serve.pointer import Pointer
from dragnoise.engine.serve.refusals import Refusal
from dragnoise.engine.serve.service import Service
from dragnoise.engine.session.live import LiveFrame
from services import LAYER, Running, busy, eventually
from sessions import PICTURE, editor

HANDLE = (20.0, 20.0)
TARGETS = [(28.0, 22.0), (40.0, 34.0), (22.0, 30.0)]


def grabbed(live: LiveConnection, **how: object) -> None:
    """Take hold, with frames that lose nothing."""
    live.grab(HANDLE, **{"format": "png"} | how)
    live.until("grabbed")


def answered(live: LiveConnection, target: tuple[float, float]) -> Frame:
    """Return the frame of a move that nothing overtakes."""
    seq = live.move(target)
    frame = live.until("model")
    assert isinstance(frame, Frame)
    assert frame.seq == seq
    return frame


def pixels(picture: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(PIL.Image.open(io.BytesIO(picture)).convert("RGB"))


def same(one: bytes, other: bytes) -> bool:
    return bool((pixels(one) == pixels(other)).all())


def test_the_first_word_is_the_state(session: RemoteSession) -> None:
    with session.live() as live:
        said = live.read(20)
    assert said == {"type": "ready", "state": session.state().model_dump()}


def test_frames_are_the_engines_own(session: RemoteSession) -> None:
    """What is seen over the wire is what the engine's live drag makes, bit for bit."""
    session.set_mask(LAYER)
    with session.live() as live:
        grabbed(live)
        frames = [answered(live, target) for target in TARGETS]
    opened = editor().open(Image.of(PIL.Image.open(io.BytesIO(session.source()))), prompt="a face")
    with opened.live(HANDLE, mask=PIL.Image.open(io.BytesIO(LAYER))) as here:
        for target, frame in zip(TARGETS, frames, strict=True):
            here.move(target)
            assert (here.frame(60).image.pixels == pixels(frame.picture)).all()


def test_moves_are_answered_in_rising_order(session: RemoteSession) -> None:
    """Of two hundred moves the last is answered, the overtaken ones are not."""
    with session.live() as live:
        grabbed(live)
        last = [live.move((20 + number / 10, 20)) for number in range(200)][-1]
        seen: list[int] = []
        while not seen or seen[-1] != last:
            frame = live.until("model")
            assert isinstance(frame, Frame)
            assert frame.ms > 0
            seen.append(frame.seq)
    assert seen == sorted(set(seen))
    assert len(seen) < 100


@pytest.mark.parametrize(("format", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_frames_have_the_format_that_was_asked_for(
    session: RemoteSession, format: str, kind: str
) -> None:
    with session.live() as live:
        grabbed(live, format=format, quality=70)
        frame = answered(live, TARGETS[0])
    assert frame.format == format
    assert PIL.Image.open(io.BytesIO(frame.picture)).format == kind


def test_a_release_refines(session: RemoteSession) -> None:
    before = session.image()
    with session.live() as live:
        grabbed(live)
        seq = live.move(TARGETS[1])
        live.release("fast")
        said: list[tuple[str, Said]] = []
        while not said or said[-1][0] != "state":
            message = live.read(60)
            if isinstance(message, Frame):
                said.append((message.kind, message))
            else:
                said.append((message["type"], message))
    kinds = [kind for kind, _ in said if kind not in ("progress", "model")]
    assert kinds == ["refined", "result", "state"]
    assert "progress" in [kind for kind, _ in said]
    refined = next(message for kind, message in said if kind == "refined")
    assert isinstance(refined, Frame)
    assert refined.seq == seq
    assert same(refined.picture, session.image())
    result = said[-2][1]
    assert not isinstance(result, Frame)
    assert (result["preset"], result["method"], result["base"]) == ("fast", "fast", "source")
    state = session.state()
    assert (state.version, state.can_undo) == (2, True)
    session.undo()
    assert same(session.image(), before)


def test_keep_shows_the_last_frame(session: RemoteSession) -> None:
    with session.live() as live:
        grabbed(live)
        frame = answered(live, TARGETS[1])
        live.keep()
        live.until("state")
        assert same(session.image(), frame.picture)
        grabbed(live, base="result")
        answered(live, TARGETS[2])


def test_cancel_lets_go(session: RemoteSession) -> None:
    before = session.image()
    with session.live() as live:
        grabbed(live)
        answered(live, TARGETS[1])
        live.cancel()
        live.until("state")
        assert same(session.image(), before)
        assert session.state().version == 1
        live.move(TARGETS[0])
        with pytest.raises(ServiceError, match="grab first"):
            live.until("model")


def test_a_release_that_runs_is_cancelled(session: RemoteSession) -> None:
    before = session.image()
    with session.live() as live:
        grabbed(live)
        answered(live, TARGETS[1])
        with busy():
            live.release("published")
            live.move(TARGETS[2])  # the pointer goes on
            live.cancel()
        live.until("state")
        assert same(session.image(), before)
        assert not session.state().can_undo
        grabbed(live)  # and it can be held again
        answered(live, TARGETS[0])


def test_who_goes_lets_go(running: Running, session: RemoteSession) -> None:
    """At each stage: having grabbed, with a frame on its way, in a release, slowly reading."""
    before = session.image()
    for stage in ("connected", "grabbed", "moving", "answered", "releasing"):
        with session.live() as live:
            if stage != "connected":
                grabbed(live)
            if stage == "answered":
                answered(live, TARGETS[0])
            if stage in ("moving", "releasing"):
                live.move(TARGETS[1])
            if stage == "releasing":
                live.release("published")
        held = next(held for held in running.inside.table if held.id == session.id)
        eventually(lambda held=held: not held.is_in_use)  # type: ignore[misc]
        assert same(session.image(), before), stage
    assert session.drag([[*HANDLE, *TARGETS[0]]]).state.can_undo


def test_a_second_connection_takes_over(session: RemoteSession) -> None:
    with session.live() as first:
        grabbed(first)
        answered(first, TARGETS[0])
        with session.live() as second:
            second.until("ready")
            with pytest.raises(ServiceError) as told:
                first.until("model", 20)
            assert told.value.code == "busy"
            with pytest.raises(ServiceError, match="4409"):
                first.read(20)
            grabbed(second)
            answered(second, TARGETS[1])


def test_a_session_in_use_is_not_dragged_by_another(session: RemoteSession) -> None:
    with session.live() as live:
        grabbed(live)
        for ask in (session.undo, lambda: session.drag([[*HANDLE, *TARGETS[0]]]), session.file):
            with pytest.raises(ServiceError) as refused:
                ask()
            assert (refused.value.status, refused.value.code) == (409, "busy")
        answered(live, TARGETS[0])
        live.cancel()
        live.until("state")
        session.file()


class Slow:
    """A client that takes one frame when it is let; what a WebSocket is to a connection."""

    client_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.texts: list[Any] = []
        self.frames: list[Frame] = []
        self.reads = asyncio.Semaphore(0)

    async def receive(self) -> dict[str, Any]:
        return await self.said.get()

    async def send_json(self, text: Any) -> None:
        self.texts.append(text["type"])

    async def send_bytes(self, message: bytes) -> None:
        await self.reads.acquire()
        self.frames.append(Frame.of(message))

    async def close(self, code: int) -> None:
        self.texts.append(code)

    def say(self, **message: Any) -> None:
        self.said.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})


def test_a_slow_reader_gets_the_newest() -> None:
    """While one frame waits to be taken the others are overtaken: the next is the last."""

    async def drag() -> list[int]:
        inside = Service(editor(), ServeSettings())
        held = await inside.table.add(lambda tenant: editor().open(PICTURE))
        slow = Slow()
        serving = asyncio.create_task(Pointer(inside, held, slow).serve())  # type: ignore[arg-type]
        slow.say(type="grab", handles=[HANDLE])
        for seq in range(1, 7):
            slow.say(type="move", seq=seq, targets=[[20 + seq, 20]])
            await made(held, seq)
        slow.reads.release()
        slow.reads.release()
        async with asyncio.timeout(20):
            while len(slow.frames) < 2:
                await asyncio.sleep(0.01)
        slow.said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await serving
        inside.threads.close()
        return [frame.seq for frame in slow.frames]

    assert asyncio.run(drag()) == [1, 6]


async def made(held: Held, seq: int) -> None:
    """Wait until a move's frame has been made and put."""
    async with asyncio.timeout(20):
        while True:
            hold = None if held.pointer is None else held.pointer._hold
            if hold is not None and hold.seq == seq and list(hold._moves) == [seq]:
                latest = hold.live._latest
                if latest is not None and latest.number == seq:
                    await asyncio.sleep(0.05)
                    return
            await asyncio.sleep(0.01)


def test_an_outbox_keeps_the_newest_of_what_is_overtaken() -> None:
    async def run() -> None:
        outbox = Outbox()
        outbox.text("ready")
        outbox.text("progress", done=1)
        outbox.frame(unsent(1))
        outbox.text("state")
        outbox.text("progress", done=2)
        outbox.frame(unsent(2))
        taken = [await outbox.next() for _ in range(4)]
        kinds = [item.seq if isinstance(item, Unsent) else item["type"] for item in taken]
        assert kinds == ["ready", "state", "progress", 2]
        assert outbox.dropped == 1
        for _ in range(256):
            outbox.text("pong")
        with pytest.raises(Refusal, match="wait to be read"):
            outbox.text("pong")

    asyncio.run(run())


def unsent(seq: int) -> Unsent:
    points = Points((HANDLE,), (HANDLE,))
    frame = LiveFrame(number=seq, kind="model", image=PICTURE, points=points, latency_ms=1.0)
    return Unsent(frame, seq, 0.0, "png", 80)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "malformed"),
        ("no JSON", "malformed"),
        ("[" * 30_000, "malformed"),
        ('{"type": "grab"}', "malformed"),
        ('{"type": "grab", "handles": [[1, NaN]]}', "malformed"),
        ('{"type": "grab", "handles": [[1, 2, 3]]}', "malformed"),
        ('{"type": "grab", "handles": [[1, 2]], "more": 1}', "malformed"),
        ('{"type": "dance"}', "malformed"),
        ('{"type": "grab", "handles": [[1, 200]]}', "point"),
        ('{"type": "grab", "handles": [[1, 2]], "preset": "none"}', "settings"),
        ('{"type": "grab", "handles": [[1, 2]], "preset": "published"}', "settings"),
        ('{"type": "move", "seq": 1, "targets": [[1, 2]]}', "session"),
        ('{"type": "release"}', "session"),
        ('{"type": "keep"}', "session"),
    ],
)
def test_what_is_wrong_is_told_and_the_connection_stays(
    session: RemoteSession, text: str, code: str
) -> None:
    with session.live() as live:
        live._socket.send(text)
        with pytest.raises(ServiceError) as told:
            live.until("grabbed")
        assert told.value.code == code
        live.say(type="ping", at="there")
        assert live.until("pong") == {"type": "pong", "at": "there"}


def test_a_move_outside_is_told_and_the_drag_goes_on(session: RemoteSession) -> None:
    with session.live() as live:
        grabbed(live)
        live.move((500.0, 1.0))
        with pytest.raises(ServiceError) as told:
            live.until("model")
        assert told.value.code == "point"
        answered(live, TARGETS[0])


def test_there_is_no_such_session(client: Client) -> None:
    with client.session("0" * 32).live() as live, pytest.raises(ServiceError) as told:
        live.until("ready")
    assert told.value.code == "not_found"


def test_a_deleted_session_says_so(client: Client, session: RemoteSession) -> None:
    copy = client.restore(session.file())
    with copy.live() as live:
        live.until("ready")
        copy.delete()
        with pytest.raises(ServiceError) as told:
            live.until("grabbed")
        assert told.value.code == "not_found"


def test_a_frame_is_sixteen_bytes_and_a_picture() -> None:
    frame = Frame("refined", "webp", 7, 12.5, b"picture")
    message = frame.packed()
    assert message[:8] == b"DN\x01\x02\x01\x00\x00\x00"
    assert struct.unpack("<If", message[8:16]) == (7, 12.5)
    assert Frame.of(message) == frame
    for wrong in (b"", message[:15], b"XX" + message[2:], message[:3] + b"\x09" + message[4:]):
        with pytest.raises(ValueError, match="frame"):
            Frame.of(wrong)

"""Work on sessions: bounded, timed, cancelled, and given up by clients that go away."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dragnoise.engine import NumbersError
from dragnoise.engine.serve import Client, ServiceError
from dragnoise.engine.serve.client import RemoteSession
from dragnoise.engine.serve.held import Held
from services import API, DRAG, FACE, LAYER, QUICK, Running, busy, eventually, service
from sessions import editor


def held_by(running: Running, session: RemoteSession) -> Held:
    return next(held for held in running.inside.table if held.id == session.id)


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Begin a call in a thread; return what waits for what it returned, or the error."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(call())
        except ServiceError as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(60)
        return came[0]

    return join


@pytest.fixture
def small() -> Iterator[Running]:
    with service(waiting=2, sessions=5, timeout_s=20, drain_s=0.2) as running:
        yield running


def test_one_more_than_may_wait_is_told_at_once(small: Running) -> None:
    with small.client() as client:
        sessions = [client.open(FACE) for _ in range(3)]
        with busy():
            waiting = [
                in_thread(lambda each=each: each.drag(DRAG, settings=QUICK))  # type: ignore[misc]
                for each in sessions[:2]
            ]
            eventually(lambda: len(small.inside.queue) == 2)
            took_ms = []
            for _ in range(20):
                since = time.perf_counter()
                with pytest.raises(ServiceError) as error:
                    sessions[2].drag(DRAG, settings=QUICK)
                took_ms.append((time.perf_counter() - since) * 1e3)
                assert (error.value.status, error.value.code) == (429, "busy")
                assert error.value.retry_s is not None
                assert error.value.retry_s >= 1
            assert client.info().protocol == 1  # what needs no device is answered meanwhile
            assert sessions[0].state().version == 1
        assert all(join().state.version == 2 for join in waiting)
        assert sessions[2].drag(DRAG, settings=QUICK).state.version == 2
    assert min(took_ms) < 50  # the slowest is the machine's


def test_a_release_waits_in_the_same_queue(small: Running) -> None:
    with small.client() as client:
        sessions = [client.open(FACE) for _ in range(3)]
        with sessions[2].live() as live:
            live.grab((20, 20))
            live.until("grabbed")
            live.move((30, 30))
            live.until("model")
            with busy():
                for each in sessions[:2]:
                    in_thread(lambda each=each: each.drag(DRAG, settings=QUICK))  # type: ignore[misc]
                eventually(lambda: len(small.inside.queue) == 2)
                live.release()
                with pytest.raises(ServiceError) as error:
                    live.until("result")
                assert error.value.code == "busy"
            eventually(lambda: len(small.inside.queue) == 0)
            live.release()  # it is still held
            live.until("result")


def test_a_full_table_is_told(small: Running) -> None:
    with small.client() as client:
        sessions = [client.open(FACE) for _ in range(5)]
        with pytest.raises(ServiceError) as error:
            client.open(FACE)
        assert (error.value.status, error.value.retry_s) == (429, 30)
        for held in small.inside.table:
            held.touched_s -= 61
        held_by(small, sessions[0]).touched_s += 1
        newest = client.open(FACE)  # one of those that nobody has used makes room
        assert newest.state().version == 1
        assert sessions[0].state().version == 1
        gone = [each for each in sessions if each.id not in {h.id for h in small.inside.table}]
        assert len(gone) == 1
        with pytest.raises(ServiceError, match="not_found"):
            gone[0].state()


def test_a_deadline(session: RemoteSession) -> None:
    with busy():
        for ask in (session.drag, lambda drags, **how: list(session.drag_events(drags, **how))):
            with pytest.raises(ServiceError) as error:
                ask(DRAG, settings=QUICK, timeout_s=0.05)
            assert error.value.code == "deadline"
            assert error.value.status in (504, 0)
    assert session.drag(DRAG, settings=QUICK).state.version == 2


@pytest.mark.parametrize("what", ["drag", "personalise"])
def test_cancel_ends_what_runs(session: RemoteSession, running: Running, what: str) -> None:
    before = session.image()
    with busy():
        ask = (
            in_thread(lambda: session.drag(DRAG, preset="published"))
            if what == "drag"
            else in_thread(lambda: session.personalise(steps=500))
        )
        eventually(lambda: held_by(running, session).work is not None)
        with pytest.raises(ServiceError, match="busy"):
            session.drag(DRAG)
        cancel = in_thread(session.cancel)
    error = ask()
    assert (error.status, error.code) == (499, "cancelled")
    assert cancel().version == 1
    assert session.image() == before
    assert not session.state().adapter


def test_a_drag_that_has_begun_is_cancelled(session: RemoteSession, running: Running) -> None:
    ask = in_thread(lambda: list(session.drag_events(DRAG, settings={**QUICK, "iterations": 5000})))
    eventually(lambda: held_by(running, session).work is not None)
    time.sleep(0.2)
    session.cancel()
    assert ask().code == "cancelled"
    assert session.state().version == 1


def test_a_session_that_is_deleted_ends_its_drag(client: Client, running: Running) -> None:
    session = client.open(FACE)
    with busy():
        ask = in_thread(lambda: session.drag(DRAG))
        eventually(lambda: held_by(running, session).work is not None)
        session.delete()
    assert ask().code == "cancelled"


def raw(running: Running, path: str, body: bytes, more: str = "", length: int = 0) -> socket.socket:
    """Send a request and return its connection, before anything was read."""
    host, port = running.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"{more}Content-Length: {length or len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("stage", ["in the body", "waiting", "working", "events", "before events"])
def test_a_client_that_goes_gives_up(running: Running, session: RemoteSession, stage: str) -> None:
    """Whenever it goes, its work ends and the session is as it was."""
    before = session.image()
    held = held_by(running, session)
    settings = QUICK | {"iterations": 5000}
    body = json.dumps({"drags": DRAG, "settings": settings, "timeout_s": 20}).encode()
    path = f"{API}/sessions/{session.id}/drag"
    if stage == "in the body":
        raw(running, path, body[:-5], length=len(body)).close()
    elif stage == "waiting":
        with busy():
            connection = raw(running, path, body)
            eventually(lambda: held.work is not None)
            connection.close()
            eventually(lambda: held.work is None)
    else:
        events = "Accept: text/event-stream\r\n" if "events" in stage else ""
        connection = raw(running, path, body, events)
        eventually(lambda: held.work is not None)
        if stage == "events":
            while b"event: iteration" not in connection.recv(2**16):
                pass
        connection.close()
    eventually(lambda: held.work is None and not held.is_in_use)
    eventually(lambda: len(running.inside.queue) == 0)
    assert session.image() == before
    assert session.drag(DRAG, settings=QUICK).state.version == 2


def test_a_crash_is_told_as_ours(
    session: RemoteSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the client is told, and the log, is that there was one: not what it says."""

    def crash(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the secret prompt")

    monkeypatch.setattr("dragnoise.engine.session.session.Session._stream", crash)
    with pytest.raises(ServiceError) as error:
        session.drag(DRAG)
    assert (error.value.status, error.value.code) == (500, "internal")
    with pytest.raises(ServiceError) as error:
        list(session.drag_events(DRAG))
    assert error.value.code == "internal"
    assert "secret" not in error.value.message
    assert '"event": "crash"' in caplog.text
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    monkeypatch.undo()
    assert session.drag(DRAG, settings=QUICK).state.version == 2


def test_a_frame_that_fails_lets_go(
    session: RemoteSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise NumbersError("no numbers")

    with session.live() as live:
        monkeypatch.setattr("dragnoise.engine.session.live.FrameMaker", fail)
        live.grab((20, 20))
        live.until("grabbed")
        live.move((30, 30))
        with pytest.raises(ServiceError) as error:
            live.until("model")
        assert error.value.code == "settings"
        monkeypatch.undo()
        eventually(lambda: editor().worker.waiting == 0)
        live.grab((20, 20))
        live.until("grabbed")
        live.move((30, 30))
        live.until("model")


def test_twenty_clients_at_once(running: Running) -> None:
    """Each has its own session, and is answered, or told to come back: nothing else."""

    def one(number: int) -> str:
        with running.client() as client:
            session = client.open(FACE, prompt=f"face {number}")
            session.set_mask(LAYER)
            try:
                result = session.drag(DRAG, settings=QUICK | {"iterations": 1})
            except ServiceError as error:
                return "later" if error.status == 429 else str(error)
            assert result.state.prompt == f"face {number}"
            session.delete()
            return "done"

    joins = [in_thread(lambda number=number: one(number)) for number in range(20)]  # type: ignore[misc]
    ends = [join() for join in joins]
    assert set(ends) <= {"done", "later"}
    assert ends.count("done") >= 8

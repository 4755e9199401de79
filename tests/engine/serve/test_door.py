"""The page is there before the model, and what needs the model waits for it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dragnoise.engine.cli import main
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.serve import ServeSettings, create_app, run
from dragnoise.engine.serve import door as doors
from dragnoise.engine.serve.door import Door
from dragnoise.engine.serve.server import Server, listening
from services import WAIT_S, eventually
from sessions import editor


class Opening:
    """A door whose model comes when it is told to.

    Attributes:
        url: Of the service.
        gate: Set when the model may be there.
        door: The door.
        ended: Set when the server has ended.
    """

    def __init__(self, url: str, gate: threading.Event, door: Door, server: Server) -> None:
        self.url, self.gate, self.door, self.server = url, gate, door, server
        self.ended = threading.Event()

    def get(self, path: str, **how: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=WAIT_S, trust_env=False, **how)


@contextmanager
def opening(error: Exception | None = None, **settings: Any) -> Iterator[Opening]:
    """Serve behind a door while this is open."""
    chosen = ServeSettings(**{"port": 0} | settings)
    gate, began = threading.Event(), threading.Event()

    def make() -> FastAPI:
        assert gate.wait(WAIT_S)
        if error is not None:
            raise error
        return create_app(editor(), chosen)

    with listening(chosen) as place:
        door = Door(make, chosen, lambda: server.stop())
        server = Server(door, door.drain, began.set)
        given = Opening(f"http://127.0.0.1:{place.getsockname()[1]}", gate, door, server)

        def serve() -> None:
            server.run(sockets=[place])
            given.ended.set()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert began.wait(WAIT_S)
            yield given
        finally:
            gate.set()
            server.stop()
            thread.join(WAIT_S)
    assert not thread.is_alive()


def test_the_page_is_there_before_the_model() -> None:
    with opening() as given:
        assert "/page/app.js" in given.get("/").text
        assert given.get("/page/app.js").headers["content-type"].startswith("text/javascript")
        assert given.get("/page/nothing.js").status_code == 404
        assert given.get("/healthz").json() == {"status": "ok"}
        ready = given.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "loading")
        assert ready.json()["seconds"] >= 0
        given.gate.set()
        eventually(lambda: given.get("/readyz").status_code == 200)
        assert given.get("/readyz").json() == {"status": "ready"}
        assert given.get("/page/app.js").status_code == 200


def test_what_needs_the_model_waits_for_it() -> None:
    with opening() as given, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(given.get, "/api/v1/info") for _ in range(2)]
        address = given.url.replace("http", "ws") + f"/api/v1/sessions/{'0' * 32}/live"

        def hello() -> str:
            with connect(address, open_timeout=WAIT_S) as socket:
                return str(socket.recv())

        told = pool.submit(hello)
        assert given.get("/healthz").status_code == 200
        assert not told.done()
        assert not any(each.done() for each in asked)
        given.gate.set()
        assert [each.result(WAIT_S).status_code for each in asked] == [200, 200]
        assert "not_found" in told.result(WAIT_S)


def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_WAIT_S", 0.05)
    with opening() as given:
        answer = given.get("/api/v1/info")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["code"] == "loading"
        assert "the model is being loaded" in answer.json()["error"]["message"]
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            connect(given.url.replace("http", "ws") + "/api/v1/sessions/x/live")
        given.gate.set()
        eventually(lambda: given.get("/api/v1/info").status_code == 200)


def test_the_guard_stands_before_the_door() -> None:
    with opening(token="a-token-of-some-length") as given:
        assert given.get("/api/v1/info").status_code == 401
        assert given.get("/page/app.js").status_code == 401
        assert given.get("/healthz").status_code == 200
        assert given.get("/healthz", headers={"Host": "elsewhere.example"}).status_code == 403
        authorised = {"Authorization": "Bearer a-token-of-some-length"}
        assert given.get("/page/app.js", headers=authorised).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_service() -> None:
    with opening(ConfigError("no such model")) as given:
        given.gate.set()
        assert given.ended.wait(WAIT_S)
        assert isinstance(given.door.error, ConfigError)


def test_it_ends_while_it_loads() -> None:
    with opening() as given:
        given.server.stop()
        given.gate.set()
        assert given.ended.wait(WAIT_S)
        assert given.door.error is None


def test_run_raises_what_loading_did(capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> Any:
        raise ConfigError("no such model")

    told: list[str] = []
    with pytest.raises(ConfigError, match="no such model"):
        run(load, ServeSettings(port=0), told.append)
    assert told[0].startswith("http://127.0.0.1:")
    assert main(["serve", "nowhere", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("open http://127.0.0.1:")
    assert "no model at 'nowhere'" in said.err.splitlines()[-1]

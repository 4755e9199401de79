"""The life of `dragnoise serve` as a process, on the embedded model: bombed, at work, drained."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pytest
from websockets.exceptions import ConnectionClosed

from dragnoise.engine.cli import main
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.serve import Client, ServeSettings, ServiceError
from dragnoise.engine.serve.server import listening
from odd_pictures import BOMBS, RGBA, _gif, png, png_notes, tiff
from services import API, WAIT_S, eventually, written

CANARY = "canary-2f9c7e51"
GROWTH_MB = 150
READY_S = 90

HUGE = [
    BOMBS["PNG 20000x1"](),
    png(8193, 2),
    png(9000, 1000, 1),
    png(5000, 4001, 1),
    png(2049, 2049, 8, RGBA),
    png_notes(b"zTXt", 1, 70),
    png_notes(b"iCCP", 50),
    tiff(100_000, 100_000, b"no"),
    tiff(4 * 10**9, 1, b"no"),
    tiff(8000, 8000, b"no", bits=32, sample=3),
    _gif(65_535),
    written(PIL.Image.new("L", (8192, 4096)), "JPEG"),
]
"""Twelve small files of pictures that would fill the memory."""


@dataclass(frozen=True)
class Life:
    """A process that serves.

    Attributes:
        url: What it printed, with the token.
        token: In it.
        process: The process.
        log: What it has written to stderr.
    """

    url: str
    token: str
    process: subprocess.Popen[str]
    log: Path

    def client(self) -> Client:
        return Client(self.url.partition("/?")[0], self.token)

    def peak_mb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) // 1024


@contextmanager
def life(folder: Path) -> Iterator[Life]:
    """Start the command, and give it when it serves; kill it where it has not ended."""
    log = folder / "log"
    command = [sys.executable, "-m", "dragnoise.engine.cli", "serve", "--port", "0"]
    command += ["--state", str(folder / "state"), "--device", "cpu", "--token", CANARY]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    killer = threading.Timer(READY_S, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("open http://"), log.read_text()
        killer.cancel()
        url = said.removeprefix("open ").strip()
        yield Life(url, url.partition("token=")[2], process, log)
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def bombs_are_refused(running: Life) -> None:
    """Twelve at once, as pictures and as masks, in less than 150 MB more."""
    with running.client() as client:
        session = client.open(sample="boat")
        before_mb = running.peak_mb()
        codes: list[str] = []

        def send(bomb: bytes) -> None:
            for ask in (client.open, session.set_mask):
                try:
                    ask(bomb)
                except ServiceError as refused:
                    codes.append(refused.code)

        threads = [threading.Thread(target=send, args=(bomb,)) for bomb in HUGE]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        grown_mb = running.peak_mb() - before_mb
        assert grown_mb < GROWTH_MB
        # Two are pictures of 8x8 with huge notes, which are not read.
        assert sorted(set(codes)) == ["mask", "too_large", "unsupported"]
        assert codes.count("too_large") >= 9
        session.delete()


def drags_and_is_edited(running: Life) -> str:
    """From a sample to a refined picture, and back; return the session's id."""
    sample = samples()[0]
    (x, y), (to_x, to_y) = sample.points.handles[0], sample.points.targets[0]
    with running.client() as client:
        assert client.info().model.side == 128
        session = client.open(sample=sample.name, prompt=f"{CANARY} balloon")
        assert sample.mask is not None
        session.set_mask(sample.mask)
        with session.live() as live:
            live.grab((x, y))
            live.move((to_x, to_y))
            live.until("model")
            live.release()
            result: Any = live.until("result")
        assert result["method"] == "fast"
        with pytest.raises(ServiceError) as refused:
            session.drag([[x, y, 500, 500]], settings={"lr": CANARY})
        assert refused.value.status == 400
        assert session.state().can_undo
        return session.id


@pytest.mark.slow
def test_a_life(tmp_path: Path) -> None:
    with life(tmp_path) as running, running.client() as client:
        bombs_are_refused(running)
        id = drags_and_is_edited(running)
        drained(running, client, id)
    kept = tmp_path / "state"
    assert json.loads((kept / f"{id}.json").read_text())["version"] == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in (kept, *kept.iterdir()))
    nothing_is_told(tmp_path / "log", id)


@pytest.mark.slow
def test_killed_in_the_midst_it_comes_back_whole(tmp_path: Path) -> None:
    """By SIGKILL while one session is dragged, one follows a pointer, one is being saved."""
    drag = [[37.3, 44.3, 49.3, 62.5]]
    quick: dict[str, Any] = {"settings": {"steps": 5, "iterations": 1}}
    state = tmp_path / "state"
    mask = samples()[0].mask
    assert mask is not None

    def saved() -> bool:
        """Whether what was done is in the folder."""
        return all((state / f"{id}.json").exists() for id in ids) and (
            json.loads((state / f"{ids[0]}.json").read_text())["version"] == 2
        )

    with life(tmp_path) as running, running.client() as client:
        dragged, followed, painted = (client.open(sample="boat") for _ in range(3))
        ids = [session.id for session in (dragged, followed, painted)]
        dragged.drag(drag, **quick)
        eventually(saved)
        pictures = [client.session(id).image() for id in ids]

        def go_on(doing: Any) -> None:
            with suppress(ServiceError, httpx.HTTPError):
                while True:
                    doing()

        threads = [
            threading.Thread(target=go_on, args=(lambda: dragged.drag(drag),)),
            threading.Thread(target=go_on, args=(lambda: painted.set_mask(mask),)),
        ]
        with suppress(ServiceError, ConnectionClosed), followed.live() as live:
            live.grab((60, 40))
            live.move((70, 40))
            live.until("model")
            for thread in threads:
                thread.start()
            eventually(lambda: "dragnoise_waiting 1.0" in client_metrics(running))
            eventually(lambda: (state / f"{ids[2]}.mask.png").exists())
            running.process.kill()
        for thread in threads:
            thread.join(WAIT_S)
    with life(tmp_path) as again, again.client() as client:
        found = [client.session(id) for id in ids]
        assert [session.image() for session in found] == pictures
        assert found[0].state().can_undo
        assert found[2].state().mask
        for session in found:
            assert session.drag(drag, **quick).state.can_undo


def drained(running: Life, client: Client, id: str) -> None:
    """SIGTERM in the middle of a drag: it is answered, nothing new begins, and the end is 0."""
    answers: list[Any] = []
    session = client.session(id)
    drag = [[37.3, 44.3, 49.3, 62.5]]

    def ask() -> None:
        answers.append(session.drag(drag, settings={"iterations": 30}))

    thread = threading.Thread(target=ask)
    with session.live() as live:
        live.until("ready")
        thread.start()
        eventually(lambda: "dragnoise_waiting 1.0" in client_metrics(running))
        running.process.send_signal(signal.SIGTERM)
        with running.client() as other:
            eventually(lambda: ready(running) == 503)
            with pytest.raises(ServiceError) as refused:
                other.open(sample="boat")
            assert (refused.value.status, refused.value.code) == (503, "draining")
        thread.join(WAIT_S)
        assert answers[0].state.version == 3
        with pytest.raises(ServiceError) as told:
            live.until("result")
        assert told.value.code == "draining"
    assert running.process.wait(30) == 0


def client_metrics(running: Life) -> str:
    url, headers = running.url.partition("/?")[0], {"Authorization": f"Bearer {running.token}"}
    return httpx.get(f"{url}/metrics", headers=headers, trust_env=False).text


def ready(running: Life) -> int:
    url = running.url.partition("/?")[0]
    return httpx.get(f"{url}/readyz", trust_env=False).status_code


def nothing_is_told(log: Path, id: str) -> None:
    """Every line is a document, and none has a prompt, the token, an id or a traceback."""
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["event"] for line in lines} >= {"ready", "request"}
    assert CANARY not in text
    assert id not in text
    assert "Traceback" not in text
    assert API not in text.replace(f"{API}/s", "").replace(f"{API}/info", "")


def test_the_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert "pip install 'dragnoise[serve]'" in capsys.readouterr().err


def test_beyond_this_machine_a_token_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from dragnoise.engine.cli import serve
    from dragnoise.engine.serve.server import address

    seen = []
    monkeypatch.setattr(serve, "load_editor", lambda parsed: None)
    monkeypatch.setattr(serve, "start_logging", lambda: None)
    monkeypatch.setattr(
        "dragnoise.engine.serve.server.run", lambda editor, settings, told: seen.append(settings)
    )
    for _ in range(2):
        main(["serve", "--host", "0.0.0.0"])
    main(["serve", "--port", "9000"])
    assert len(seen[0].token) >= 32
    assert seen[0].token != seen[1].token
    assert address(seen[0], 8765).endswith(f":8765/?token={seen[0].token}")
    assert seen[2].token == ""
    assert address(seen[2], 9000) == "http://127.0.0.1:9000/"


def test_an_answer_waits_for_no_acknowledgement() -> None:
    """A connection is as its listener is: with Nagle's algorithm an answer takes 40 ms more."""
    with (
        listening(ServeSettings(port=0)) as place,
        socket.create_connection(place.getsockname()),
        place.accept()[0] as taken,
    ):
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dragnoise.engine.cli import serve
    from dragnoise.engine.serve.server import listening
    from dragnoise.engine.serve.settings import ServeSettings

    monkeypatch.setattr(serve, "load_editor", lambda parsed: None)
    monkeypatch.setattr(serve, "start_logging", lambda: None)
    with listening(ServeSettings(port=0)) as place:
        assert main(["serve", "--port", str(place.getsockname()[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err

"""The service."""

import json
import random
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from dragnoise.engine.serve import ServiceError
from dragnoise.engine.serve.client import RemoteSession
from odd_pictures import mutated
from services import API, DRAG, FACE, LAYER, QUICK, Running, png, service
from sessions import PICTURE
from tally import WHOLE, Tally

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi import checks

_FILES = hypothesis.strategies.sampled_from([FACE, LAYER, LAYER[:50], b"none"])
schemathesis.openapi.media_type("image/png", _FILES)

_WRITTEN = {"application/json", "multipart/form-data"}

CHECKS = [
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with service(timeout_s=0.3, sessions=10_000, waiting=100) as running:
        yield running


@pytest.fixture
def session(running: Running) -> Iterator[RemoteSession]:
    with running.client() as client:
        session = client.open(FACE)
        yield session
        session.cancel()


@pytest.mark.filterwarnings("ignore::Warning")
def test_requests_of_every_kind(running: Running, session: RemoteSession, tally: Tally) -> None:
    """Requests that schemathesis makes of the OpenAPI, well formed and not."""
    schema = schemathesis.openapi.from_url(f"{running.url}{API}/openapi.json")
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        _try(operation, GenerationMode.POSITIVE, session.id, tally)
        kinds = {body.media_type for body in operation.body}
        if operation.query or kinds & _WRITTEN:  # else there is nothing to get wrong
            _try(operation, GenerationMode.NEGATIVE, session.id, tally)
    with running.http() as http:
        tally.judge(http.get("/healthz").status_code == 200, "the service is not well")


def _try(operation: Any, mode: Any, id: str, tally: Tally) -> None:
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=_REAL)
    @hypothesis.settings(
        max_examples=450 if WHOLE else 2,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def attempt(case: Any, real: bool) -> None:
        if real and operation.method != "delete" and "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = id
        answer = case.call()
        name = f"{operation.label} {answer.status_code}"
        if answer.status_code == 500:
            tally.judge(False, f"{name}: {case.as_curl_command()[:2000]}")
            return
        try:
            case.validate_response(answer, checks=CHECKS)
            tally.judge(True, "")
        except AssertionError as wrong:
            tally.judge(False, f"{name}: {wrong}"[:2000])
        except BaseExceptionGroup as wrongs:
            tally.judge(False, f"{name}: {[str(wrong) for wrong in wrongs.exceptions]}"[:2000])

    attempt()


_REAL = hypothesis.strategies.booleans()


def _refused(ask: Any) -> str:
    """Return how a call ended: "", or the status and code of its refusal."""
    try:
        ask()
    except ServiceError as refused:
        return f"{refused.status} {refused.code}"
    return ""


def test_pictures_with_changed_bytes(running: Running, tally: Tally) -> None:
    """PNG, JPEG, WebP, AVIF and TIFF with bytes changed, as picture and as mask."""
    right = {"", "400 image", "400 mask", "413 too_large", "415 unsupported"}
    files = [FACE, LAYER, *(PICTURE.to_bytes(format) for format in ("jpeg", "webp", "tiff"))]
    with running.client() as client:
        session = client.open(FACE)
        for chance in tally.lot(20, 2000):
            data = mutated(chance.choice(files), chance)
            for ask in (client.open, session.set_mask):
                ended = _refused(lambda ask=ask, data=data: ask(data))
                tally.judge(ended in right, ended)


def test_session_files_with_changed_bytes(running: Running, tally: Tally) -> None:
    """Session files with bytes changed, handed to restore."""
    with running.client() as client:
        session = client.open(FACE)
        file = session.file()
        for chance in tally.lot(20, 1000):
            ended = _refused(lambda chance=chance: client.restore(mutated(file, chance)))
            tally.judge(ended in ("", "400 session"), ended)


WORDS: tuple[Any, ...] = (
    {"type": "grab", "handles": [[20, 20]], "format": "jpeg"},
    {"type": "grab", "handles": [[20, 20], [40, 40]]},
    {"type": "grab", "handles": [[20, 20]], "base": "result"},
    {"type": "move", "targets": [[30, 30]]},
    {"type": "move", "targets": [[31, 30]]},
    {"type": "move", "targets": [[30, 30], [1, 1]]},
    {"type": "release"},
    {"type": "keep"},
    {"type": "cancel"},
    {"type": "ping", "at": None},
    {"type": "none"},
    [],
    "close",
    "undo",
    "drag",
    "mask",
)


def test_words_in_any_order(running: Running, tally: Tally) -> None:
    """What a client can say on the WebSocket and beside it, in any order; then it drags."""
    for chance in tally.lot(4, 300):
        with running.client() as client:
            session = client.open(FACE)
            for _ in range(2):
                _say(session, chance)
            session.cancel()
            ended = _refused(lambda session=session: session.drag(DRAG, settings=QUICK))
            # Who has just gone may still hold it for a moment; a deadline is short here.
            tally.judge(ended in ("", "409 busy", "504 deadline"), ended)


def _say(session: RemoteSession, chance: random.Random) -> None:
    with session.live() as live:
        for seq in range(chance.randrange(1, 12)):
            word = chance.choice(WORDS)
            if word == "close":
                return
            if word in ("undo", "drag", "mask"):
                asks = {
                    "undo": session.undo,
                    "drag": lambda: session.drag(DRAG, settings=QUICK),
                    "mask": lambda: session.set_mask(LAYER),
                }
                _refused(asks[word])
            elif isinstance(word, dict):
                live.say(**word, **({"seq": seq} if word["type"] == "move" else {}))
            else:
                live._socket.send(json.dumps(word))
        if chance.random() < 0.5:
            live.say(type="ping", at=1)
            said: Any = {}
            while said != {"type": "pong", "at": 1}:
                said = live.read(30)


def test_many_at_once(running: Running, tally: Tally) -> None:
    """Clients at once, each with its own picture: none sees another's."""
    count = 40 if WHOLE else 8

    def one(number: int) -> None:
        grey = PICTURE.to_pil().point(lambda value: value // 2 + number)
        with running.client() as client:
            session = client.open(png(grey), prompt=str(number))
            _refused(lambda: session.drag(DRAG, settings=QUICK))
            seen = session.source() == png(grey) and session.state().prompt == str(number)
            tally.judge(seen, f"{number} sees another's")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    tally.judge(tally.right == count, "not all were answered")

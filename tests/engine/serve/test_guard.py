"""Who may ask: the token, the origin, the host, and how much at a time."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import connect

from dragnoise.engine import ConfigError, Editor, Store
from dragnoise.engine.serve import ServeSettings, ServiceError
from golden_cases import MODEL
from services import API, FACE, Running, service

TOKEN = 'the-token;,"=%&+with-unusual-letters'


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with service(token=TOKEN) as running:
        yield running


def routes(running: Running) -> list[tuple[str, str]]:
    """Return every method and path of the protocol's, and of the page, with an id in it."""
    with running.http() as http:
        document = http.get(f"{API}/openapi.json", headers=bearer(TOKEN)).json()
    described = [
        (method.upper(), re.sub(r"\{\w+\}", "0" * 32, path))
        for path, methods in document["paths"].items()
        for method in methods
    ]
    assert len(described) == 21
    others = ("/", "/page/app.js", "/metrics", f"{API}/openapi.json", "/none")
    return [*described, *(("GET", path) for path in others)]


def test_no_route_answers_a_wrong_token(guarded: Running) -> None:
    with guarded.http() as http:
        for method, path in routes(guarded):
            for headers in ({}, bearer(TOKEN[:-1]), {"Cookie": f"dragnoise={TOKEN[:8]}"}):
                answer = http.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path, headers)
                assert "www-authenticate" in answer.headers


WRONG = [
    *(bearer(token) for token in ("x", TOKEN + "x", TOKEN.upper(), f"{TOKEN} x", "x" * 10_000)),
    {"Authorization": "Basic eDp5"},
    {"Authorization": "Bearer"},
    {"Authorization": TOKEN},
    {"Cookie": "dragnoise="},
    {"Cookie": "dragnoise"},
    {"Cookie": '"; ='},
]


def test_no_other_token_opens(guarded: Running) -> None:
    with guarded.http() as http:
        for headers in WRONG:
            assert http.get(f"{API}/info", headers=headers).status_code == 401, headers


def test_the_token_opens(guarded: Running) -> None:
    with guarded.http() as http:
        assert http.get(f"{API}/info", headers=bearer(TOKEN)).status_code == 200


def test_health_needs_no_token_and_says_nothing(guarded: Running) -> None:
    with guarded.http() as http:
        for path in ("/healthz", "/readyz"):
            answer = http.get(path)
            assert answer.status_code == 200
            assert set(answer.json()) == {"status"}


def test_the_page_is_given_a_cookie_for_the_token(guarded: Running) -> None:
    with guarded.http() as http:
        welcome = http.get("/", params={"token": TOKEN})
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
        cookie = welcome.headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert "the-token" not in cookie
        assert http.get("/").status_code == 200
        assert http.get(f"{API}/info").status_code == 200
    with guarded.http() as http:
        for wrong in ("", "none", TOKEN[:-1]):
            assert http.get("/", params={"token": wrong}).status_code == 401
        assert http.get(f"{API}/info", params={"token": TOKEN}).status_code == 401


def handshake(running: Running, **headers: str) -> int:
    """Return the status that a WebSocket's handshake is answered with."""
    url = "ws" + running.url.removeprefix("http") + f"{API}/sessions/{'0' * 32}/live"
    try:
        with connect(url, additional_headers=headers, proxy=None):
            return 101
    except websockets.exceptions.InvalidStatus as refused:
        return refused.response.status_code


def test_a_websocket_needs_the_token(guarded: Running) -> None:
    for headers in WRONG[:4]:
        assert handshake(guarded, **headers) == 401
    assert handshake(guarded) == 401
    assert handshake(guarded, **bearer(TOKEN)) == 101


FOREIGN = (
    "https://evil.example",
    "null",
    "",
    "file://",
    "http://127.0.0.1",
    "http://127.0.0.1.evil.example:{port}",
    "http://evil.example#127.0.0.1:{port}",
    "http://localhost:{port}",
)


def test_other_origins_change_nothing(running: Running) -> None:
    port = running.url.rpartition(":")[2]
    with running.http() as http:
        for origin in FOREIGN:
            headers = {"Origin": origin.format(port=port)}
            for method, path in routes(running):
                if method in ("POST", "PUT", "DELETE"):
                    answer = http.request(method, path, headers=headers)
                    assert answer.status_code == 403, (method, path, origin)
                    assert answer.json()["error"]["code"] == "forbidden"
            assert handshake(running, **headers) == 403
        own = {"Origin": running.url}
        assert http.post(f"{API}/sessions", headers=own).status_code == 422
    assert handshake(running, **own) == 101


def test_an_origin_that_is_named_may_ask() -> None:
    with service(origins=("https://app.example",)) as running, running.http() as http:
        for origin, status in (("https://app.example", 422), ("http://app.example", 403)):
            answer = http.post(f"{API}/sessions", headers={"Origin": origin})
            assert answer.status_code == status


def test_the_loopback_has_its_own_names_alone(running: Running) -> None:
    """A page elsewhere whose name is made to lead here reads nothing."""
    port = running.url.rpartition(":")[2]
    with running.http() as http:
        for host, status in (
            ("evil.example", 403),
            (f"evil.example:{port}", 403),
            ("", 403),
            (f"localhost.evil.example:{port}", 403),
            (f"localhost:{port}", 200),
            ("127.0.0.1", 200),
            (f"[::1]:{port}", 200),
        ):
            assert http.get(f"{API}/info", headers={"Host": host}).status_code == status, host


def test_beyond_this_machine_there_is_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(ConfigError, match="token"):
            ServeSettings(host=host)
        assert ServeSettings(host=host, token="x").token == "x"
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.5"):
        assert ServeSettings(host=host).token == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1},
        {"port": 2**16},
        {"sessions": 0},
        {"waiting": 0},
        {"timeout_s": 0},
        {"idle_s": float("nan")},
        {"body_bytes": 1},
        {"preset": "none"},
        {"host": None},
        {"token": "two words"},
        {"token": "ünusual"},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServeSettings(**wrong)


def pieces(number: int, size: int) -> Iterator[bytes]:
    for _ in range(number):
        yield bytes(size)


def test_a_body_is_counted_as_it_comes(running: Running) -> None:
    """Of one that says its length none is read; of one that does not, no more than is allowed."""
    most = running.settings.body_bytes
    with running.http() as http:
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for path, headers in ((f"{API}/sessions", form), (f"{API}/sessions/restore", {})):
            answers = [
                http.post(path, headers=headers, content=bytes(most + 1)),
                http.post(path, headers=headers, content=chain([head], pieces(50, 2**20))),
                http.post(path, files={"image": bytes(most)}),
            ]
            for answer in answers:
                assert answer.status_code == 413
                assert answer.json()["error"]["code"] == "too_large"
        assert http.get("/healthz").status_code == 200


def test_a_length_that_is_a_lie_is_no_way_round(running: Running) -> None:
    with running.http() as http:
        for length in ("99999999999999999999999999", "-1", "x"):
            request = http.build_request("POST", f"{API}/sessions", content=b"x")
            request.headers["Content-Length"] = length
            try:
                answer = http.send(request)
            except httpx.HTTPError:
                continue
            assert answer.status_code in (400, 413)


def test_a_client_says_what_was_refused(guarded: Running) -> None:
    with guarded.client() as client, pytest.raises(ServiceError) as error:
        client.session("0" * 32).state()
    assert (error.value.status, error.value.code) == (404, "not_found")


def test_two_services_share_nothing(running: Running) -> None:
    """The sessions of one are not found by the other, though one editor works for both."""
    with service() as other, running.client() as here, other.client() as there:
        opened = here.open(FACE)
        with pytest.raises(ServiceError, match="not_found"):
            there.session(opened.id).image()
        opened.delete()


def test_no_session_finds_anothers_results_in_a_cache(tmp_path: Path) -> None:
    """Each has keys of its own: the same picture is computed again, a session's own is found."""
    store = Store(folder=tmp_path / "cache")
    cached = Editor.from_pretrained(MODEL, device="cpu", cache=store, check_pictures=False)

    def inversions() -> tuple[int, int]:
        """Those that were made, and those that were found."""
        counted = store.to_dict()["stages"]["invert"]
        return counted["misses"], sum(counted["hits"].values())

    with service(cached) as running, running.client() as client:
        how: dict[str, Any] = {"settings": {"steps": 5, "iterations": 1}}
        for number in (1, 2):
            session = client.open(FACE)
            session.drag([(20, 20, 40, 34)], **how)
            session.drag([(20, 20, 30, 34)], **how)
            assert inversions() == (number, 0)
        client.restore(session.file()).drag([(20, 20, 30, 34)], **how)
        assert inversions()[1] == 0

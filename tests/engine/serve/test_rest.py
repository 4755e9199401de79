"""The routes of sessions and pictures, each as its protocol says."""

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from dragnoise.engine import PRESETS, Image
from dragnoise.engine.cli.demo import samples
from dragnoise.engine.serve import Client, ServiceError
from dragnoise.engine.serve.client import RemoteSession
from services import API, DRAG, FACE, LAYER, QUICK, Running, eventually, png, written
from sessions import PICTURE, editor

JSON = {"Content-Type": "application/json"}


def pixels(picture: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(PIL.Image.open(io.BytesIO(picture)).convert("RGB"))


def refused(error: pytest.ExceptionInfo[ServiceError]) -> tuple[int, str]:
    return error.value.status, error.value.code


def test_info(client: Client) -> None:
    info = client.info()
    assert (info.protocol, info.model.name, info.model.side) == (1, "model", 256)
    assert [preset.name for preset in info.presets] == list(PRESETS)
    assert info.limits.model_dump() == {"body_bytes": 20 * 2**20, "pixels": 2**22, "side": 8192}
    assert [sample.name for sample in info.samples] == [sample.name for sample in samples()]
    assert info.samples[0].drags == [(*samples()[0].points.handles[0], 49.3, 62.5)]


def test_samples(client: Client, running: Running) -> None:
    first = samples()[0]
    with running.http() as http:
        picture = http.get(f"{API}/samples/{first.name}.png")
        mask = http.get(f"{API}/samples/{first.name}/mask.png")
        for wrong in ("none.png", "none/mask.png", "..%2Fsamples%2Fboat.png", "boat_mask.png"):
            assert http.get(f"{API}/samples/{wrong}").status_code == 404
    assert first.mask is not None
    assert picture.content == first.image.read_bytes()
    assert mask.content == first.mask.read_bytes()
    opened = client.open(sample=first.name)
    assert opened.state().prompt == first.prompt
    assert client.open(sample=first.name, prompt="mine").state().prompt == "mine"
    with pytest.raises(ServiceError) as error:
        client.open(sample="none")
    assert refused(error) == (404, "not_found")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_pictures_of_five_kinds_open(client: Client, format: str) -> None:
    data = written(PICTURE.to_pil(), format)
    session = client.open(data, prompt="a face", negative_prompt="a cat")
    state = session.state()
    assert (state.width, state.height, state.version) == (64, 64, 1)
    assert (state.prompt, state.negative_prompt) == ("a face", "a cat")
    no = (state.can_undo, state.can_redo, state.mask, state.grip, state.adapter)
    assert no == (False,) * 5
    assert (pixels(session.image()) == Image.from_bytes(data).pixels).all()


@pytest.mark.parametrize("format", ["GIF", "BMP", "PPM", "ICO", "EPS"])
def test_pictures_of_other_kinds_are_refused(client: Client, format: str) -> None:
    with pytest.raises(ServiceError) as error:
        client.open(written(PICTURE.to_pil(), format))
    assert refused(error) == (415, "unsupported")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 415, "unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported"),
        (FACE[:100], 400, "image"),
        (FACE[:-2000], 400, "image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 400, "image"),
        (b"\xff\xd8\xff" + bytes(1000), 400, "image"),
        (b"RIFF\x00\x00\x00\x00WEBP" + bytes(1000), 400, "image"),
        (b"II*\x00" + b"\xff" * 1000, 400, "image"),
    ],
)
def test_what_is_no_picture_is_refused(client: Client, data: bytes, status: int, code: str) -> None:
    with pytest.raises(ServiceError) as error:
        client.open(data)
    assert refused(error) == (status, code)


def test_a_drag_is_the_engines(session: RemoteSession) -> None:
    session.set_mask(LAYER)
    result = session.drag(DRAG, preset="fast")
    edit = editor().edit(
        PICTURE,
        DRAG,
        prompt="a face",
        mask=PIL.Image.open(io.BytesIO(LAYER)),
        preset="fast",
    )
    assert (pixels(session.image()) == edit.image.pixels).all()
    assert (pixels(session.source()) == PICTURE.pixels).all()
    assert (result.method, result.preset, result.base) == ("fast", "fast", "source")
    assert [point.ended for point in result.points] == list(edit.points.handles)
    assert result.iterations == len(edit.history.losses)
    assert set(result.timings_ms) >= {"drag", "decode", "total"}
    assert result.state == session.state()
    assert (result.state.version, result.state.can_undo) == (2, True)


def test_settings_change_a_preset(session: RemoteSession) -> None:
    result = session.drag(DRAG, preset="published", settings=QUICK)
    assert result.iterations == 2
    assert session.drag(DRAG, preset="published", settings=QUICK, base="result").base == "result"


def test_undo_and_redo(session: RemoteSession) -> None:
    session.drag(DRAG, settings=QUICK)
    after = session.image()
    state = session.undo()
    assert (state.version, state.can_undo, state.can_redo) == (3, False, True)
    assert (pixels(session.image()) == PICTURE.pixels).all()
    with pytest.raises(ServiceError) as error:
        session.undo()
    assert refused(error) == (400, "session")
    assert session.redo().version == 4
    assert session.image() == after


@pytest.mark.parametrize("layer", ["mask", "grip"])
def test_layers(session: RemoteSession, layer: str) -> None:
    put = session.set_mask if layer == "mask" else session.set_grip
    put(LAYER)
    assert getattr(session.state(), layer)
    assert (pixels(getattr(session, layer)()) == pixels(LAYER)).all()
    for wrong, status, code in (
        (png(PIL.Image.new("L", (3, 3))), 400, "mask"),
        (LAYER[:60], 400, "mask"),
        (b"", 415, "unsupported"),
    ):
        with pytest.raises(ServiceError) as error:
            put(wrong)
        assert refused(error) == (status, code)
    assert getattr(session.state(), layer)
    put(None)
    assert not getattr(session.state(), layer)
    with pytest.raises(ServiceError, match="not_found"):
        getattr(session, layer)()


def test_an_empty_grip_is_refused(session: RemoteSession) -> None:
    with pytest.raises(ServiceError) as error:
        session.set_grip(png(PIL.Image.new("L", (64, 64))))
    assert refused(error) == (400, "mask")


def test_a_grip_moves(session: RemoteSession) -> None:
    without = session.drag(DRAG, settings=QUICK)
    first = session.image()
    session.set_grip(LAYER)
    session.drag(DRAG, settings=QUICK)
    assert session.image() != first
    assert without.state.version == 2


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_pictures_come_in_three_formats(session: RemoteSession, format: str) -> None:
    for picture in (session.image(format), session.source(format)):
        opened = PIL.Image.open(io.BytesIO(picture))
        assert (opened.format, opened.size) == (format.upper(), (64, 64))


def test_a_file_restores_a_session(client: Client, session: RemoteSession) -> None:
    session.drag(DRAG, settings=QUICK)
    other = client.restore(session.file())
    assert other.id != session.id
    assert other.image() == session.image()
    assert other.undo().can_redo
    next_one, same = (each.drag(DRAG, settings=QUICK) for each in (other, session))
    assert next_one.points == same.points
    assert other.image() == session.image()


@pytest.mark.parametrize("content", [b"", b"no session", FACE])
def test_another_file_restores_none(client: Client, content: bytes) -> None:
    with pytest.raises(ServiceError) as error:
        client.restore(content)
    assert refused(error) == (400, "session")
    assert "/" not in error.value.message  # nor is a path of the service's told


def test_a_deleted_session_has_gone(client: Client) -> None:
    session = client.open(FACE)
    session.delete()
    for ask in (session.state, session.image, session.undo, session.delete):
        with pytest.raises(ServiceError) as error:
            ask()
        assert refused(error) == (404, "not_found")


def test_nobody_finds_anothers_session(client: Client, session: RemoteSession) -> None:
    """An id is the only key: one letter less, or in another case, opens nothing."""
    wrong = [session.id[:-1], session.id.upper(), session.id + "0", f"{session.id[:-1]}%00"]
    for id in [*wrong, "..", "%2e%2e", "restore", "*"]:
        with pytest.raises(ServiceError) as error:
            client.session(id).state()
        assert error.value.status in (404, 405)
    ids = {client.open(FACE).id for _ in range(3)}
    assert len(ids) == 3
    assert all(len(id) == 32 for id in ids)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"drags": []}, 422, "malformed"),
        ({"drags": [[1, 2, 3]]}, 422, "malformed"),
        ({"drags": [[1, 2, 3, None]]}, 422, "malformed"),
        ({"drags": [[1, 2, 3, "x" * 10_000]]}, 422, "malformed"),
        ({"drags": [[1, 2, 3, 1e300]]}, 422, "malformed"),
        ({"drags": [[1, 2, 3, 4]] * 65}, 422, "malformed"),
        ({"drags": DRAG, "more": 1}, 422, "malformed"),
        ({"drags": DRAG, "timeout_s": 0}, 422, "malformed"),
        ({"drags": DRAG, "base": "none"}, 422, "malformed"),
        ({"drags": DRAG, "settings": {"steps": [1]}}, 422, "malformed"),
        ({"drags": DRAG, "preset": "none"}, 400, "settings"),
        ({"drags": DRAG, "preset": "\ud800"}, 422, "malformed"),
        ({"drags": DRAG, "settings": {"steps": 0}}, 400, "settings"),
        ({"drags": DRAG, "settings": {"steps": "ten"}}, 400, "settings"),
        ({"drags": DRAG, "settings": {"none": 1}}, 400, "settings"),
        ({"drags": [[1, 2, 64, 1]]}, 400, "point"),
        ({"drags": DRAG, "base": "last"}, 400, "session"),
    ],
)
def test_what_is_wrong_with_a_drag_is_told(
    session: RemoteSession, running: Running, asked: dict[str, Any], status: int, code: str
) -> None:
    with running.http() as http:
        path = f"{API}/sessions/{session.id}/drag"
        answer = http.post(path, content=json.dumps(asked), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(answer.json()["error"]["message"]) < 500
    assert session.state().version == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_document_is_malformed(
    session: RemoteSession, running: Running, content: bytes
) -> None:
    with running.http() as http:
        for path in ("drag", "personalise"):
            answer = http.post(f"{API}/sessions/{session.id}/{path}", content=content, headers=JSON)
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "malformed")


def test_what_is_no_form_is_malformed(running: Running) -> None:
    forms: list[dict[str, Any]] = [
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
        {"content": b"{}"},
        {"data": {"prompt": "neither"}},
        {"data": {"image": "text"}},
        {"data": {"sample": "boat"}, "files": {"image": FACE}},
        {"data": {"sample": "boat", "prompt": "x" * 2001}},
        {"data": {"sample": "boat", "prompt": "x" * 2_000_000}, "files": {"other": b""}},
        {"files": {f"more{number}": b"" for number in range(2000)}},
    ]
    with running.http() as http:
        for form in forms:
            answer = http.post(f"{API}/sessions", **form)
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "malformed")


def test_personalise_learns(session: RemoteSession) -> None:
    result = session.personalise(steps=2)
    assert (result.method, result.iterations, result.points) == ("personalise", 2, [])
    assert session.state().adapter


def test_events_tell_of_a_drag(session: RemoteSession) -> None:
    events = list(session.drag_events(DRAG, settings=QUICK))
    names = [name for name, _ in events]
    assert names[-1] == "result"
    assert names.count("iteration") == QUICK["iterations"]
    assert names.count("progress") >= 3
    first = dict(events)["progress"]
    assert set(first) == {"stage", "done", "of"}
    assert events[-1][1]["state"] == session.state().model_dump()
    with pytest.raises(ServiceError) as error:
        list(session.drag_events([[1, 2, 100, 1]]))
    assert error.value.code == "point"


def test_other_paths_and_methods(running: Running) -> None:
    with running.http() as http:
        for method, path, status in (
            ("GET", "/none", 404),
            ("GET", f"{API}/none", 404),
            ("PUT", f"{API}/info", 405),
            ("DELETE", f"{API}/sessions", 405),
            ("GET", "/page/../settings.py", 404),
            ("GET", "/page/%2e%2e/settings.py", 404),
            ("GET", "/page/..%2fsettings.py", 404),
            ("GET", "/page/%00", 404),
            ("GET", "/page//etc/passwd", 404),
        ):
            answer = http.request(method, path)
            assert answer.status_code == status
            assert answer.json()["error"]["code"] == "not_found"


def test_the_page_is_ours_alone(running: Running) -> None:
    """Nothing may be loaded from elsewhere, nor may others frame it."""
    with running.http() as http:
        answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_health_and_metrics(running: Running, session: RemoteSession) -> None:
    session.drag(DRAG, settings=QUICK)
    with running.http() as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/readyz").json() == {"status": "ready"}
        text = http.get("/metrics").text
    for line in (
        "dragnoise_sessions ",
        "dragnoise_waiting 0.0",
        'dragnoise_requests_total{method="POST",route="/api/v1/sessions/{id}/drag",status="200"}',
        "dragnoise_frame_seconds_count",
    ):
        assert line in text
    assert session.id not in text


def test_pictures_are_the_clients_alone(session: RemoteSession, running: Running) -> None:
    """No cache on the way keeps them."""
    with running.http() as http:
        answer = http.get(f"{API}/sessions/{session.id}/image")
    assert answer.headers["cache-control"] == "no-store"
    eventually(lambda: session.state().version == 1)

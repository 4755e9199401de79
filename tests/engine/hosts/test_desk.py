"""A picture on a host's canvas: what is asked, what is answered, what is left behind."""

import io
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import PIL.Image
import pytest

from dragnoise.engine import (
    ConfigError,
    Editor,
    Image,
    ImageError,
    Mask,
    MaskError,
    PointError,
    SessionError,
)
from dragnoise.engine.hosts.desk import Desk, address_of, file_of
from services import FACE, LAYER
from sessions import MASK, PICTURE, editor, same

GRAB = {"do": "grab", "handles": [[20, 20]]}
MOVE = {"do": "move", "targets": [[30, 26]]}
RELEASE = {"do": "release", "drags": [[20, 20, 40, 34]], "preset": "live"}


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk(PICTURE, editor, "a face")
    yield desk
    desk.cancel()


def picture(content: bytes | None) -> Image:
    assert content is not None
    return Image.from_bytes(content)


def test_a_drag_is_the_sessions_own(desk: Desk) -> None:
    session = editor().open(PICTURE, prompt="a face")
    result = session.drag([(20, 20, 40, 34)], mask=MASK, preset="live")
    desk.answer({"do": "paint", "layer": "mask"}, LAYER)
    state, content = desk.answer(RELEASE)
    assert same(picture(content), result.image)
    assert state == desk.state()
    assert state | {"version": 0} == {
        "version": 0,
        "width": 64,
        "height": 64,
        "can_undo": True,
        "can_redo": False,
        "kind": "refined",
    }
    further = session.drag([(20, 20, 44, 37)], mask=MASK, preset="live", base="result")
    assert same(desk.drag("20,20:44,37", preset="live"), further)
    assert list(desk.drags) == [(20, 20, 44, 37)]


def test_frames_follow_and_are_let_go(desk: Desk) -> None:
    assert desk.answer(MOVE) == ({}, None)  # nothing is held
    assert desk.answer(GRAB) == ({}, None)
    with editor().open(PICTURE, prompt="a face").live((20, 20)) as live:
        for target in ((30, 26), (40, 34)):
            live.move(target)
            own = io.BytesIO()
            live.frame().image.to_pil().save(own, "JPEG", quality=90)
            assert desk.answer({"do": "move", "targets": [target]}) == ({}, own.getvalue())
    assert desk.answer({"do": "cancel"})[0]["version"] == 1
    assert same(desk.image, PICTURE)
    desk.answer(RELEASE)  # the session is free
    desk.answer(GRAB)
    desk.answer(RELEASE)  # a drag lets go by itself
    assert desk.version == 3


def test_undo_and_redo(desk: Desk) -> None:
    with pytest.raises(SessionError):
        desk.answer({"do": "undo"})
    _, after = desk.answer(RELEASE)
    state, before = desk.answer({"do": "undo"})
    assert (state["version"], state["kind"]) == (3, None)
    assert same(picture(before), PICTURE)
    assert desk.answer({"do": "redo"})[1] == after
    assert desk.answer({"do": "before"})[1] == before
    assert desk.answer({"do": "seen"})[1] == after


def test_what_is_let_go_while_it_is_taken_is_not_held(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = type(desk.session).live
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args: Any, **how: Any) -> Any:
        begun.set()
        go_on.wait(60)
        return live(*args, **how)

    monkeypatch.setattr(type(desk.session), "live", slow)
    grabbing = threading.Thread(target=desk.grab, args=([[20, 20]],))
    grabbing.start()
    begun.wait(60)
    desk.let_go()
    go_on.set()
    grabbing.join(60)
    assert desk.frame([[30, 26]]) is None
    desk.drag("20,20:40,34", preset="live", timeout_s=60)  # nobody holds the session


def test_layers(desk: Desk) -> None:
    assert desk.answer({"do": "layer", "layer": "mask"}) == ({}, None)
    desk.answer({"do": "paint", "layer": "mask"}, LAYER)
    desk.answer({"do": "paint", "layer": "grip"}, LAYER)
    assert desk.mask is not None
    assert (desk.mask.editable == MASK).all()
    _, content = desk.answer({"do": "layer", "layer": "grip"})
    assert content is not None
    assert (Mask.from_bytes(content, 64, 64).editable == MASK).all()
    desk.answer({"do": "paint", "layer": "mask"})
    assert desk.mask is None


def test_another_prompt_begins_with_what_is_seen(desk: Desk) -> None:
    desk.answer(RELEASE)
    seen = desk.image
    desk.describe("a cat")
    assert (desk.prompt, desk.session.prompt) == ("a cat", "a cat")
    assert same(desk.source, seen)
    assert not desk.state()["can_undo"]


@pytest.mark.parametrize(
    ("asked", "picture", "error", "said"),
    [
        ({"do": "fly"}, None, ConfigError, "asks for no 'fly'"),
        ({}, None, ConfigError, "asks for no"),
        ({"do": "grab", "handles": "here"}, None, PointError, "here"),
        ({"do": "grab"}, None, PointError, "None"),
        ({"do": "grab", "handles": [[900, 1]]}, None, PointError, "outside the 64x64"),
        ({"do": "release", "drags": []}, None, PointError, "0 handles"),
        ({"do": "release", "drags": [[1, 2, 3]]}, None, PointError, "no"),
        ({"do": "release", "drags": [[1, 2, 3, 4]], "preset": "no"}, None, ConfigError, "preset"),
        ({"do": "paint", "layer": "image"}, LAYER, ConfigError, "no layer 'image'"),
        ({"do": "paint", "layer": "mask"}, b"no picture", MaskError, "10 bytes"),
    ],
)
def test_what_is_refused_is_said(
    desk: Desk, asked: dict[str, Any], picture: bytes | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        desk.answer(asked, picture)
    assert same(desk.image, PICTURE)
    desk.answer(RELEASE)


def test_without_an_editor_there_is_a_picture_and_what_is_placed() -> None:
    desk = Desk(FACE)
    desk.place([[1, 2, 3, 4]])
    assert list(desk.drags) == [(1, 2, 3, 4)]
    assert same(desk.image, PICTURE)
    with pytest.raises(SessionError, match="give the component an editor"):
        desk.drag()


def test_a_picture_as_text() -> None:
    assert file_of(address_of(FACE)) == FACE
    jpeg = io.BytesIO()
    PIL.Image.new("RGB", (2, 2)).save(jpeg, "JPEG")
    assert address_of(jpeg.getvalue()).startswith("data:image/jpeg;base64,")
    for broken in (None, 3, "", "http://elsewhere/", "data:image/png;base64,*", "/etc/passwd"):
        with pytest.raises(ImageError):
            file_of(broken)


def test_a_bomb_is_judged_by_its_first_bytes() -> None:
    head = b"IHDR" + (9000).to_bytes(4) * 2 + FACE[24:29]
    bomb = FACE[:12] + head + zlib.crc32(head).to_bytes(4) + FACE[33:]
    with pytest.raises(ImageError, match="9000x9000"):
        Desk(bomb)


def test_the_editor_is_loaded_when_it_is_wanted() -> None:
    loaded: list[Editor] = []

    def load() -> Editor:
        loaded.append(editor())
        return editor()

    desk = Desk(PICTURE, load)
    desk.answer({"do": "seen"})
    desk.answer({"do": "paint", "layer": "mask"}, LAYER)
    assert not loaded
    desk.session  # noqa: B018 it is opened
    desk.session  # noqa: B018 once
    assert len(loaded) == 1

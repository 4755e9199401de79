# ruff: noqa: E402 where the package is missing these tests are skipped before it is imported
"""Dragging in a gradio app: the component's Python half, and the demo in a browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

gr = pytest.importorskip("gradio", reason="the gradio component needs gradio")

import studio
from dragnoise.engine.hosts.desk import address_of
from dragnoise.engine.hosts.gradio import Desk, DragImage, told
from hosting import Board, page_of
from services import FACE, LAYER
from sessions import MASK, PICTURE, editor, same

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

APPS = Path(studio.__file__).with_name("gradio_apps.py")
PLACED = [[20, 20, 40, 34]]


@pytest.fixture
def component() -> DragImage:
    return DragImage(editor=editor(), prompt="a face")


def opened(component: DragImage) -> str:
    answer = component.ask({"do": "open", "picture": address_of(FACE)})
    assert (answer["width"], answer["height"], answer["version"]) == (64, 64, 1)
    return str(answer["desk"])


def test_a_handler_is_given_what_a_person_did(component: DragImage) -> None:
    id = opened(component)
    paint = {"desk": id, "do": "paint", "layer": "mask", "picture": address_of(LAYER)}
    assert component.ask(paint) == {}
    desk = component.preprocess({"desk": id, "version": 1, "drags": PLACED})
    assert desk is not None
    assert same(desk.image, PICTURE)
    assert list(desk.drags) == [(20, 20, 40, 34)]
    assert desk.mask is not None
    assert (desk.mask.editable == MASK).all()
    assert desk.prompt == "a face"
    desk.drag(preset="live")
    assert component.postprocess(desk) == {"desk": id, "version": 2, "drags": []}


def test_frames_are_answers(component: DragImage) -> None:
    id = opened(component)
    assert component.ask({"desk": id, "do": "grab", "handles": [[20, 20]]}) == {}
    frame = component.ask({"desk": id, "do": "move", "targets": [[30, 26]]})
    assert frame["picture"].startswith("data:image/jpeg;base64,")
    assert component.ask({"desk": id, "do": "cancel"})["version"] == 1


def test_a_picture_is_shown(component: DragImage) -> None:
    for picture in (PICTURE, PICTURE.pixels, PICTURE.to_pil()):
        value = component.postprocess(picture)
        assert value is not None
        desk = component.preprocess(value)
        assert desk is not None
        assert same(desk.image, PICTURE)
        assert desk.prompt == "a face"
    assert component.postprocess(None) is None
    assert component.preprocess(None) is None
    other = component.preprocess(component.postprocess(Desk(PICTURE, prompt="a cat")))
    assert other is not None
    assert other.prompt == "a cat"


def test_nobody_finds_anothers_picture(component: DragImage) -> None:
    one, other = opened(component), opened(component)
    assert len(one) == 32
    assert one != other
    component.ask({"desk": one, "do": "paint", "layer": "mask", "picture": address_of(LAYER)})
    desk = component.preprocess({"desk": other, "drags": []})
    assert desk is not None
    assert desk.mask is None
    for guess in ("", one[:-1], None, 0, [one], {"desk": one}):
        assert component.ask({"desk": guess, "do": "seen"}) == {"gone": True}
    with pytest.raises(gr.Error, match="no longer held"):
        component.preprocess({"desk": one[::-1], "drags": []})


def test_pictures_kept_are_bounded_and_the_oldest_goes() -> None:
    component = DragImage(editor=editor(), desks=2)
    first, second = opened(component), opened(component)
    component.ask({"desk": first, "do": "seen"})
    opened(component)
    assert component.ask({"desk": second, "do": "seen"}) == {"gone": True}
    assert component.ask({"desk": first, "do": "seen"})["version"] == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (7, "by an object"),
        ({"do": "open"}, "data:image/png"),
        ({"do": "open", "picture": "file:///etc/passwd"}, "data:image/png"),
        ({"do": "open", "picture": "data:image/png;base64,QUJD"}, "3 bytes"),
        ({"do": "open", "picture": "data:image/png;base64," + "A" * 30_000_000}, "send a smaller"),
        ({"do": "fly"}, "asks for no 'fly'"),
        ({"do": "grab", "handles": [[900, 1]]}, "outside the 64x64"),
        ({"do": "release", "drags": PLACED}, "listen to it"),
    ],
)
def test_what_is_refused_is_said(component: DragImage, asked: Any, said: str) -> None:
    id = opened(component)
    given = asked | {"desk": id} if isinstance(asked, dict) else asked
    assert said in component.ask(given)["error"]


def test_without_an_editor_a_handler_drags_as_it_likes() -> None:
    component = DragImage(PICTURE)
    value = component.value
    assert "how" in component.props
    assert not component.props["how"]["drags"]
    desk = component.preprocess(value | {"drags": PLACED})
    assert desk is not None
    assert list(desk.drags) == [(20, 20, 40, 34)]


def test_no_word_of_its_script_becomes_an_event_by_chance(component: DragImage) -> None:
    quoted = set(re.findall(r'"(\w+)"', component.js_on_load))
    events = {"upload", "grab", "move", "release", "edit", "undo", "value"}
    assert quoted - events <= {"opened", "painted", "changed"}
    assert not hasattr(component, "mask")


def test_progress_is_gradios() -> None:
    seen: list[Any] = []
    told(lambda share, desc: seen.append((share, desc)))("invert", 3, 4)
    assert seen == [(0.75, "invert")]


def test_the_class_writes_no_file() -> None:
    import dragnoise.engine.hosts.gradio as module

    assert not Path(module.__file__).with_suffix(".pyi").exists()


# Apps in a process of their own, as they are served, in a browser.


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(APPS)],
        env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, "the apps did not start"
    yield url
    process.terminate()
    process.wait(60)
    process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with studio.browser() as browser:
        yield browser


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    with page_of(browser, 1000, 860) as page:
        yield page


needs_browser = pytest.mark.skipif(bool(studio.missing()), reason=studio.missing())


@pytest.mark.slow
@needs_browser
def test_a_thing_is_dragged_in_the_demo(page: "Page", address: str) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(f"{address}/demo/")
    page.wait_for_selector("#board")
    board = Board(page)
    board.photograph("gradio-empty")
    page.get_by_label("Open a sample").click()
    page.get_by_role("option", name="boat").click()
    board.opened(128)
    board.drag((50, 75), (66, 75))
    board.photograph("gradio-model")
    board.shown("refined")
    page.get_by_text("the points reached their targets").wait_for()
    board.photograph("gradio-refined")
    page.click('[data-act="undo"]')
    page.wait_for_selector('[data-act="redo"]:not([disabled])')
    assert page.locator('[data-act="undo"]').is_disabled()
    page.click('#tools [data-tool="mask"]')
    page.click('[data-act="box"]')
    board.pull((20, 20), (90, 110))
    page.mouse.up()
    page.wait_for_selector('#tools [data-tool="mask"][data-painted="true"]')
    board.photograph("gradio-mask")
    assert hosts == {address.split("/")[2]}


@pytest.mark.slow
@needs_browser
def test_events_reach_ordinary_handlers(page: "Page", address: str) -> None:
    def heard(**counts: int) -> None:
        boxes = {name: page.get_by_label(name, exact=True) for name in counts}
        board.until(lambda: {n: int(box.input_value()) for n, box in boxes.items()} == counts)

    page.goto(f"{address}/own/")
    board = Board(page)
    board.opened(128)
    board.drag((50, 75), (66, 75))
    board.shown("refined")
    at = page.get_by_label("pointer", exact=True)
    board.until(lambda: near(at.input_value(), (50, 75, 66, 75)))
    page.locator("#canvas").press("Control+z")
    heard(upload=0, grab=1, undo=1)  # a picture that was given is no person's doing
    board.drag((66, 75), (50, 75))
    page.get_by_text("only to the right").first.wait_for()
    heard(grab=2, refused=1)
    page.click('#tools [data-tool="grip"]')
    board.pull((40, 60), (60, 90))
    page.mouse.up()
    heard(edit=1, grab=3)  # what is held is held anew, with the grip


def near(text: str, drag: tuple[float, ...]) -> bool:
    found = [float(each) for each in text.split()]
    return len(found) == 4 and max(abs(a - b) for a, b in zip(found, drag, strict=True)) < 0.5


@pytest.mark.slow
@needs_browser
def test_a_picture_that_is_forgotten_is_opened_anew(page: "Page", address: str) -> None:
    page.goto(f"{address}/own/")
    board = Board(page)
    board.opened(128)
    other = page.context.new_page()
    other.goto(f"{address}/own/")  # there is room for one
    other.wait_for_selector("#tools:not([hidden])")
    other.locator("#file").set_input_files(
        {"name": "face.png", "mimeType": "image/png", "buffer": FACE}
    )
    board.until(lambda: other.get_by_label("upload", exact=True).input_value() == "1")
    page.bring_to_front()
    board.drag((50, 75), (66, 75))
    board.shown("refined")


@pytest.mark.slow
def test_frames_wait_in_no_queue(address: str) -> None:
    """They go by requests of their own, each answered as soon as it is made."""
    config = httpx.get(f"{address}/own/config", trust_env=False).json()
    [place] = [each["id"] for each in config["components"] if each["props"].get("props")]

    def ask(session: str, **asked: Any) -> Any:
        body = {"component_id": place, "fn_name": "ask", "session_hash": session, "data": asked}
        url = f"{address}/own/gradio_api/component_server"
        return httpx.post(url, json=body, timeout=60, trust_env=False).json()

    desk = ask("s", do="open", picture=address_of(FACE))["desk"]
    assert ask("s", desk=desk, do="grab", handles=[[20, 20]]) == {}
    assert set(ask("s", desk=desk, do="move", targets=[[30, 26]])) == {"picture"}
    assert "asks for no" in ask("s", desk=desk)["error"]
    named = httpx.get(f"{address}/own/gradio_api/info", trust_env=False).json()
    assert "/drag" in named["named_endpoints"]

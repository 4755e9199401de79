"""A widget in a notebook: its Python half on a false line, and both halves with a browser."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("anywidget", reason="the notebook's widget needs anywidget")

import hosting
import studio
from dragnoise.engine import ConfigError, Image, Mask, PointError
from dragnoise.engine.diffusion.samples import samples
from dragnoise.engine.hosts.desk import embedded
from dragnoise.engine.hosts.jupyter import Drag
from notebook import FakeComm, bridged, fake_comms
from services import LAYER, busy
from sessions import MASK, PICTURE, editor, same

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RELEASE = {"do": "release", "drags": [[20, 20, 40, 34]], "preset": "live"}


def widget(**how: Any) -> Drag:
    with fake_comms():
        return Drag(PICTURE, "a face", editor=editor(), preset="live", **how)


@pytest.fixture
def drag() -> Iterator[Drag]:
    drag = widget()
    yield drag
    drag.close()


def line(drag: Drag) -> FakeComm:
    assert isinstance(drag.comm, FakeComm)
    return drag.comm


def test_pictures_are_buffers(drag: Drag) -> None:
    answer, [seen] = line(drag).ask(1, {"do": "seen"})
    assert answer["width"] == 64
    assert same(Image.from_bytes(seen), PICTURE)
    line(drag).ask(2, {"do": "paint", "layer": "mask"}, LAYER)
    assert isinstance(drag.mask, Mask)
    assert (drag.mask.editable == MASK).all()
    assert drag.grip is None


def test_a_drag_is_seen_in_python_and_on_every_canvas(drag: Drag) -> None:
    told: list[str] = []
    drag.observe(lambda change: told.append(change["name"]), ["image", "drags"])
    line(drag).ask(1, {"do": "grab", "handles": [[20, 20]]})
    _, [frame] = line(drag).ask(2, {"do": "move", "targets": [[30, 26]]})
    assert frame[:2] == b"\xff\xd8"
    _, [refined] = line(drag).ask(3, RELEASE)
    line(drag).until(lambda said: said.get("version") == 2)
    assert sorted(told) == ["drags", "image"]
    assert drag.drags == ((20, 20, 40, 34),)
    assert same(Image.from_bytes(refined), drag.image)
    line(drag).until(lambda said: "progress" in said)
    assert same(drag.undo(), PICTURE)
    line(drag).until(lambda said: said.get("version") == 3)
    assert same(drag.redo(), Image.from_bytes(refined))


def test_a_drag_from_a_cell_is_the_same(drag: Drag) -> None:
    result = drag.drag([(20, 20, 40, 34)])
    other = editor().open(PICTURE, prompt="a face").drag([(20, 20, 40, 34)], preset="live")
    assert same(result, other)
    assert same(drag.image, result.image)
    assert drag.session.can_undo
    line(drag).until(lambda said: said.get("version") == 2)


def test_the_kernels_thread_is_free_at_once(drag: Drag) -> None:
    """What is asked is handed on, however long the model takes."""
    with busy():
        line(drag).hear({"view": "v", "number": 1, "asked": {"do": "grab", "handles": [[20, 20]]}})
        line(drag).until(lambda said: said.get("number") == 1)
        line(drag).hear({"view": "v", "number": 2, "asked": {"do": "move", "targets": [[30, 26]]}})
        assert line(drag).ask(3, {"do": "seen"})[1]  # while the frame waits for the device
        assert not any(said.get("number") == 2 for said, _ in line(drag).said)
        assert threading.current_thread() is threading.main_thread()
    line(drag).until(lambda said: said.get("number") == 2)


def test_what_is_let_go_answers_and_has_no_picture(drag: Drag) -> None:
    line(drag).ask(1, {"do": "grab", "handles": [[20, 20]]})
    with busy():
        line(drag).hear({"view": "v", "number": 2, "asked": {"do": "move", "targets": [[30, 26]]}})
        line(drag).ask(3, {"do": "cancel"})
    answered, pictures = line(drag).until(lambda said: said.get("number") == 2)
    assert (answered["answer"], pictures) == ({}, [])
    line(drag).ask(4, RELEASE)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"do": "grab", "handles": [[900, 1]]}, "outside the 64x64"),
        ({"do": "fly"}, "asks for no 'fly'"),
        (None, "asks for no"),
        (7, "error"),
    ],
)
def test_what_is_refused_is_said(drag: Drag, asked: Any, said: str) -> None:
    answer, _ = line(drag).ask(1, asked)
    assert said in str(answer)


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="no preset 'no'"):
        Drag(PICTURE, preset="no")
    drag = widget(mask=MASK)
    assert drag.mask is not None
    with pytest.raises(PointError):
        drag.drag([])
    drag.close()


# Both halves, in a browser.

needs_browser = pytest.mark.skipif(bool(studio.missing()), reason=studio.missing())


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with studio.browser() as browser:
        yield browser


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    with hosting.page_of(browser, 760, 480) as page:
        yield page


@pytest.mark.slow
@needs_browser
def test_a_thing_is_dragged_in_a_cell(page: "Page") -> None:
    boat = next(sample for sample in samples() if sample.name == "boat")
    with fake_comms():
        drag = Drag(boat.image, boat.prompt, editor=embedded(), mask=boat.mask)
    before = drag.image
    bridged(page, drag, "#111")
    board = hosting.Board(page)
    board.opened(128)
    page.wait_for_selector('#tools [data-tool="mask"][data-painted="true"]')
    assert page.locator("#cell > div").get_attribute("class") == "dark"
    board.drag((50, 75), (66, 75))
    board.photograph("jupyter")
    board.shown("refined")
    page.wait_for_selector('[data-act="undo"]:not([disabled])')
    assert np.allclose(drag.drags, [(50, 75, 66, 75)], atol=0.5)
    moved = np.abs(drag.image.pixels.astype(float) - before.pixels).mean()
    assert moved > 1
    page.locator("#canvas").press("Control+z")
    page.wait_for_selector('[data-act="redo"]:not([disabled])')
    assert same(drag.image, before)
    page.locator("#canvas").press("m")
    page.locator("#canvas").press("Delete")
    page.wait_for_selector('#tools [data-tool="mask"][data-painted="false"]')
    board.until(lambda: drag.mask is None)
    drag.close()

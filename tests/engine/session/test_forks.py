"""A process that is forked works, or says at once why it cannot."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from dragnoise.engine import Editor
from golden_cases import MODEL
from sessions import PICTURE, POINTS, QUICK, same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

LONG_S = 60.0


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_a_fork(work: Callable[[], object]) -> str:
    """Return what work gives, or the name of what it raises, in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 told to the parent
            said = f"{getattr(error, 'code', type(error).__name__)}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + LONG_S
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the fork hangs")
        time.sleep(0.01)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.parametrize("worked", [False, True])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_edits_as_its_parent_does(worked: bool) -> None:
    editor = Editor.from_pretrained(MODEL, device="cpu")
    session = editor.open(PICTURE, config=QUICK)
    expected = editor.edit(PICTURE, POINTS, config=QUICK) if worked else None

    def work() -> bool:
        first = editor.edit(PICTURE, POINTS, config=QUICK)
        return same(session.drag(POINTS), first) and same(first, expected or first)

    assert in_a_fork(work) == "True"
    assert same(session.drag(POINTS), editor.edit(PICTURE, POINTS, config=QUICK))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_middle_of_work_says_so() -> None:
    editor = Editor.from_pretrained(MODEL, device="cpu")
    session = editor.open(PICTURE, config=QUICK)
    working, forked = threading.Event(), threading.Event()

    def hold(iteration: object) -> None:
        working.set()
        assert forked.wait(LONG_S)

    thread = threading.Thread(target=lambda: session.drag(POINTS, on_iteration=hold))
    thread.start()
    assert working.wait(LONG_S)
    try:
        for work in (lambda: session.drag(POINTS), lambda: editor.edit(PICTURE, POINTS)):
            said = in_a_fork(work)
            assert said.startswith("fork: ")
            assert "\n" not in said
        assert 'start processes by "spawn"' in said
    finally:
        forked.set()
        thread.join()
    assert same(session.drag(POINTS), editor.edit(PICTURE, POINTS, config=QUICK))

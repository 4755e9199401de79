"""Edits, sessions and streams are jobs of one worker: nobody holds the device while they think."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dragnoise.engine import DeadlineError, Editor, EditResult, SessionError
from dragnoise.engine.diffusion.lora.adapter import Adapter, projections
from dragnoise.engine.system.worker import Job
from golden_cases import MODEL
from sessions import FURTHER, MASK, OTHERS, PICTURE, POINTS, QUICK, assert_same, editor, opened

LONG_S = 60.0


class Busy:
    """An editor whose worker is busy with something else, until `leave` is set."""

    def __init__(self) -> None:
        self.editor = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
        self.leave = threading.Event()
        entered = threading.Event()

        def hold(job: Job[None]) -> None:
            entered.set()
            assert self.leave.wait(LONG_S)

        self.job = self.editor.worker.submit(hold, what="something else")
        assert entered.wait(LONG_S)


@pytest.fixture
def busy() -> Iterator[Busy]:
    busy = Busy()
    yield busy
    busy.leave.set()
    busy.job.result()


def adapter() -> Adapter:
    layers = projections(editor().model.unet.network)
    random = torch.Generator().manual_seed(0)
    return Adapter(
        tuple(
            (
                name,
                torch.randn(2, layer.in_features, generator=random) / 10,
                torch.randn(layer.out_features, 2, generator=random) / 10,
            )
            for name, layer in sorted(layers.items())
        )
    )


def test_a_slow_reader_of_a_stream_holds_nothing_but_its_session() -> None:
    """The next edit, also one with another adapter, is done between two events of the stream."""
    one = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
    stream = opened(one).drag_stream(POINTS, mask=MASK)
    first = next(stream)
    assert first.iteration == 0
    other = one.edit(PICTURE, OTHERS, config=QUICK)
    assert_same(other, editor().edit(PICTURE, OTHERS, config=QUICK))
    one.edit(PICTURE, OTHERS, config=QUICK, adapter=adapter())
    *_, last = stream
    assert last.result is not None
    assert_same(last.result, opened().drag(POINTS, mask=MASK))


def test_a_stream_is_computed_ahead_of_its_reader() -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
    done: list[int] = []
    stream = opened(one).drag_stream(
        POINTS, progress=lambda stage, step, of: done.append(step) if stage == "drag" else None
    )
    next(stream)
    one.worker.submit(lambda job: None, what="the next").result()  # the drag has ended
    assert done == [1, 2, 3]
    assert len(list(stream)) == 3


def test_a_reader_that_leaves_late_leaves_the_session_as_it_was() -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
    session = opened(one)
    stream = session.drag_stream(POINTS)
    next(stream)
    one.worker.submit(lambda job: None, what="the next").result()
    stream.close()
    assert session.image is session.source
    with pytest.raises(SessionError, match="nothing to undo"):
        session.undo()


def test_a_deadline_bounds_the_wait_for_the_device(busy: Busy) -> None:
    session = opened(busy.editor)
    with pytest.raises(DeadlineError, match=r"the drag did not end within 0\.1 s"):
        session.drag(POINTS, timeout_s=0.1)
    with pytest.raises(DeadlineError, match=r"the drag did not end within 0\.1 s"):
        next(session.drag_stream(POINTS, timeout_s=0.1))
    with pytest.raises(DeadlineError, match=r"the training did not end within 0\.1 s"):
        session.personalise(steps=2, timeout_s=0.1)
    with pytest.raises(DeadlineError, match="the preparation did not end within"):
        session.prepare(timeout_s=0.1)
    with pytest.raises(DeadlineError, match=r"the generation did not end within 0\.1 s"):
        busy.editor.generate("a ring", config=QUICK, timeout_s=0.1)
    with pytest.raises(DeadlineError, match=r"the drag did not end within 0\.1 s"):
        busy.editor.edit(PICTURE, POINTS, config=QUICK, timeout_s=0.1)
    assert session.image is session.source


def test_a_deadline_bounds_the_wait_for_the_session() -> None:
    session = opened()
    stream = session.drag_stream(POINTS)
    next(stream)
    errors: list[BaseException] = []

    def drag() -> None:
        try:
            session.drag(FURTHER, timeout_s=0.1)
        except DeadlineError as late:
            errors.append(late)

    thread = threading.Thread(target=drag)
    thread.start()
    thread.join(LONG_S)
    assert "the session was busy" in str(errors[0])
    assert len(list(stream)) == 3


def test_the_urgent_drag_is_next(busy: Busy) -> None:
    order: list[str] = []

    def drag(name: str, priority: int) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == "invert":
                order.append(name)

        busy.editor.edit(PICTURE, POINTS, config=QUICK, priority=priority, progress=progress)

    threads = []
    for number, (name, priority) in enumerate((("usual", 0), ("urgent", 1)), start=1):
        threads.append(threading.Thread(target=drag, args=(name, priority)))
        threads[-1].start()
        while busy.editor.worker.waiting < number:
            time.sleep(0.001)
    busy.leave.set()
    for thread in threads:
        thread.join(LONG_S)
    assert order == ["urgent"] * 3 + ["usual"] * 3


def test_a_callback_may_edit_but_not_with_its_own_session() -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False)
    session = opened(one)
    inner: list[EditResult] = []

    def on_iteration(iteration: object) -> None:
        if not inner:
            inner.append(one.edit(PICTURE, OTHERS, config=QUICK, adapter=adapter()))
            with pytest.raises(SessionError, match="in the middle of"):
                session.drag(FURTHER)

    result = session.drag(POINTS, on_iteration=on_iteration)
    expected = opened().drag(POINTS, on_iteration=lambda iteration: None)
    assert_same(result, expected)
    with_adapter = editor().edit(PICTURE, OTHERS, config=QUICK, adapter=adapter())
    assert np.array_equal(inner[0].image.pixels, with_adapter.image.pixels)


def test_inference_mode_and_autocast_stay_with_the_caller() -> None:
    """A drag differentiates, whatever its caller is in the middle of."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        result = opened().drag(POINTS)
    assert_same(result, opened().drag(POINTS))

"""A drag that follows the pointer: the newest target, from the source, without a queue."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dragnoise.engine import (
    CancelledError,
    ConfigError,
    DeadlineError,
    Editor,
    FastConfig,
    NumbersError,
    PointError,
    Session,
    SessionError,
    WarpConfig,
    stages,
)
from dragnoise.engine.pipelines import frames
from dragnoise.engine.session.live import Live, LiveFrame
from dragnoise.engine.system.cuda_graphs import NullGraph
from golden_cases import MODEL
from sessions import MASK, PICTURE, editor, same

HANDLE = (20.0, 20.0)
TARGETS = [(28.0, 22.0), (40.0, 34.0), (22.0, 30.0)]
QUICK = FastConfig(steps=10, strength=0.3, iterations=0, grip_px=16.0)
ANSWER_S = 60


def opened(editor: Editor | None = None) -> Session:
    return (editor or globals()["editor"]()).open(PICTURE, prompt="a face")


def live(session: Session | None = None, **how: Any) -> Live:
    options: dict[str, Any] = {"config": QUICK, "method": "fast"}
    return (session or opened()).live(HANDLE, **options | how)


def answered(drag: Live, target: Any) -> LiveFrame:
    """Return the frame of a move that nothing overtakes."""
    number = drag.move(target)
    frame = drag.frame(ANSWER_S)
    assert (frame.number, frame.kind) == (number, "model")
    return frame


@contextmanager
def busy(editor: Editor) -> Iterator[None]:
    """Keep the editor's worker busy while this is open."""
    gate, begun = threading.Event(), threading.Event()

    def wait(job: object) -> None:
        begun.set()
        gate.wait(ANSWER_S)

    job = editor.worker.submit(wait, what="the wait")
    begun.wait(ANSWER_S)
    with ExitStack() as stack:
        stack.callback(job.wait)
        stack.callback(gate.set)
        yield


def test_a_frame_is_an_edit_by_the_same_settings() -> None:
    how: dict[str, Any] = {"mask": MASK, "method": "fast", "config": QUICK}
    with live(mask=MASK) as drag:
        frame = answered(drag, TARGETS[1])
    edit = opened().drag([(HANDLE, TARGETS[1])], **how)
    assert same(frame.image, edit.image)
    assert frame.points.handles == (HANDLE,)
    assert frame.points.targets == (TARGETS[1],)
    assert frame.latency_ms >= frame.timings_ms["total"] > 0


def test_a_grip_moves_as_one_piece_in_every_frame_and_after() -> None:
    grip = np.zeros((64, 64), np.bool_)
    grip[8:40, 8:40] = True
    how: dict[str, Any] = {"grip": grip, "method": "fast", "config": QUICK}
    with live(grip=grip) as drag:
        frame = answered(drag, TARGETS[1])
        refined = drag.release(method="fast", config=QUICK)
    with live() as drag:
        assert not same(frame.image, answered(drag, TARGETS[1]).image)
    edit = opened().drag([(HANDLE, TARGETS[1])], **how)
    assert same(frame.image, edit.image)
    assert same(refined.image, edit.image)
    with live(grip=grip) as drag:
        drag.move(TARGETS[1])
        exact = drag.release(config=editor().defaults.replace(iterations=1))  # takes no grip
    assert exact.settings["method"] == "dragnoise"


@pytest.mark.parametrize("limits", [{}, {"mask": MASK}, {"grip": MASK}])
def test_a_warped_frame_is_there_at_once(limits: dict[str, Any]) -> None:
    """It needs neither the worker nor the model, and is what the method warp makes."""
    session = opened()
    with live(session, **limits) as drag:
        with pytest.raises(SessionError, match="nothing has moved"):
            drag.warped()
        with busy(editor()):
            number = drag.move(TARGETS[1])
            frame = drag.warped()
            still = (drag.move(HANDLE), drag.warped())[1]
    assert (frame.kind, frame.number, frame.points.targets) == ("warped", number, (TARGETS[1],))
    config = WarpConfig(grip_px=QUICK.grip_px, fit=QUICK.fit)
    edit = opened().drag([(HANDLE, TARGETS[1])], method="warp", config=config, **limits)
    apart = frame.image.pixels.astype(int) - edit.image.pixels
    assert np.abs(apart).max() <= 1
    assert same(still.image, session.source)
    assert not same(frame.image, session.source)


def test_the_preset_live_is_the_usual_one() -> None:
    with opened().live(HANDLE) as drag:
        frame = answered(drag, TARGETS[0])
    edit = opened().drag([(HANDLE, TARGETS[0])], preset="live")
    assert same(frame.image, edit.image)


def test_the_way_changes_no_bit() -> None:
    """A path that returns gives what no path does; one that crosses itself likewise."""
    with live() as drag:
        still, *others = (answered(drag, target) for target in (HANDLE, *TARGETS))
        back = answered(drag, HANDLE)
        again = answered(drag, TARGETS[0])
    assert same(still.image, back.image)
    assert same(others[0].image, again.image)
    assert not same(others[0].image, others[1].image)
    assert not same(still.image, others[0].image)


def test_of_many_moves_the_newest_is_answered() -> None:
    drag = live()
    answered(drag, TARGETS[0])
    with busy(editor()):
        for step in range(100):
            last = drag.move((20 + step * 0.3, 24))
        assert editor().worker.waiting == 1
    frame = drag.frame(ANSWER_S)
    assert frame.number == last == 101
    with pytest.raises(SessionError, match="nothing has moved since the last frame"):
        drag.frame(ANSWER_S)
    drag.close()


def test_a_callback_sees_every_frame_in_order_and_the_refined_one_last() -> None:
    seen: list[LiveFrame] = []
    session = opened()
    drag = live(session, on_frame=seen.append)
    for target in TARGETS:
        answered(drag, target)
    result = drag.release(method="fast", config=QUICK.replace(iterations=2))
    assert [frame.number for frame in seen] == [1, 2, 3, 3]
    assert [frame.kind for frame in seen] == ["model"] * 3 + ["refined"]
    assert seen[-1].image is result.image is session.image
    assert seen[-1].latency_ms > seen[-2].latency_ms


def test_a_release_drags_to_the_last_target_and_can_be_undone() -> None:
    session = opened()
    with live(session, mask=MASK) as drag:
        drag.move(TARGETS[1])
        result = drag.release()
    assert same(result.image, opened().drag([(HANDLE, TARGETS[1])], mask=MASK, preset="fast").image)
    assert session.undo() is session.source
    assert session.redo() is result.image
    with pytest.raises(SessionError, match="this live drag is closed"):
        drag.move(TARGETS[0])


def test_a_release_by_the_usual_preset_keeps_the_other_options() -> None:
    told: list[str] = []
    with opened().live(HANDLE, preset=None) as drag:
        drag.move(TARGETS[0])
        result = drag.release(preset=None, progress=lambda stage, *_: told.append(stage))
    assert result.settings["config"] == editor().defaults_of("fast")
    assert {"drag", "propagate"} <= set(told)
    with live() as drag:
        drag.move(TARGETS[0])
        with pytest.raises(DeadlineError, match=r"within 1e-06 s"):
            drag.release(timeout_s=1e-6)


def test_a_frame_that_is_kept_is_what_the_next_drag_goes_on_from() -> None:
    session = opened()
    with live(session) as drag:
        frame = answered(drag, TARGETS[1])
        assert drag.keep() is frame.image
    assert session.image is frame.image
    how: dict[str, Any] = {"method": "fast", "config": QUICK}
    further = session.drag([((40, 34), (44, 30))], base="result", **how)
    assert further.settings["base"] == "inverted"
    alone = editor().open(frame.image, prompt="a face").drag([((40, 34), (44, 30))], **how)
    assert same(further.image, alone.image)
    session.undo()
    assert session.undo() is session.source


def test_a_drag_of_the_result_begins_at_it() -> None:
    session = opened()
    session.drag([(HANDLE, TARGETS[1])], method="fast", config=QUICK)
    with live(session, base="result") as drag:
        frame = answered(drag, TARGETS[0])
    alone = editor().open(session.image, prompt="a face")
    with live(alone) as drag:
        assert same(frame.image, answered(drag, TARGETS[0]).image)


def test_several_handles() -> None:
    handles, targets = [(20, 20), (44, 40)], [(24, 20), (40, 48)]
    session = opened()
    with session.live(handles, method="fast", config=QUICK) as drag:
        assert drag.handles == tuple(handles)
        frame = answered(drag, targets)
        with pytest.raises(PointError, match="2 handles and 1 targets"):
            drag.move([(24, 20)])
    pairs = list(zip(handles, targets, strict=True))
    assert same(frame.image, opened().drag(pairs, method="fast", config=QUICK).image)


def test_it_ends_within_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed after the first denoising step: there is no second, and nothing is decoded."""
    session, steps, decoded = opened(), [], []
    drag = live(session)
    answered(drag, TARGETS[0])
    real = stages.propagate

    def propagate(*inputs: Any, on_step: Callable[[int], None]) -> Tensor:
        def stop(done: int) -> None:
            steps.append(done)
            assert drag._job is not None
            drag._job.cancel()
            on_step(done)

        return real(*inputs, on_step=stop)

    with monkeypatch.context() as patched:
        patched.setattr(frames, "propagate", propagate)
        patched.setattr(frames, "decode", lambda *given: decoded.append(given))
        drag.move(TARGETS[1])
        with pytest.raises(CancelledError, match="the frame was cancelled"):
            drag.frame(ANSWER_S)
        with pytest.raises(SessionError, match="nothing has moved since"):
            drag.frame(ANSWER_S)
    assert (steps, decoded) == ([1], [])
    answered(drag, TARGETS[2])
    drag.close()
    assert same(session.image, PICTURE)


def test_closing_drops_what_waits_and_frees_the_session() -> None:
    session = opened()
    drag = live(session)
    with busy(editor()):
        drag.move(TARGETS[0])
        drag.close()
    with pytest.raises(SessionError, match="this live drag is closed"):
        drag.frame(ANSWER_S)
    drag.close()
    assert same(session.image, PICTURE)
    live(session).close()


def test_it_holds_its_session_and_no_other() -> None:
    session, other = opened(), opened()
    drag = live(session)
    drag.move(TARGETS[0])  # nobody reads the frame
    points = [(HANDLE, TARGETS[0])]
    with pytest.raises(SessionError, match="in the middle of a stream of this thread"):
        session.drag(points, method="fast", config=QUICK)
    other.drag(points, method="fast", config=QUICK)
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(session.drag, points, method="fast", config=QUICK)
        assert not waits.done()
        drag.close()
        assert waits.result(ANSWER_S).image is session.image


def test_a_pointer_that_never_rests_lets_others_work() -> None:
    drag: Live

    def on_frame(frame: LiveFrame) -> None:
        drag.move((20 + frame.number % 7, 24))

    drag = live(on_frame=on_frame)
    drag.move(TARGETS[0])
    other = opened()
    for _ in range(3):
        other.drag([(HANDLE, TARGETS[0])], method="fast", config=QUICK)
    drag.close()
    assert drag._latest is not None
    assert drag._latest.number > 1


def test_what_a_callback_raises_is_the_readers() -> None:
    def on_frame(frame: LiveFrame) -> None:
        raise RuntimeError("mine")

    session = opened()
    drag = live(session, on_frame=on_frame)
    for number, target in enumerate(TARGETS, start=1):
        drag.move(target)
        assert drag.frame(ANSWER_S).number == number
        with pytest.raises(RuntimeError, match="mine"):
            drag.frame(ANSWER_S)
    drag.close()
    assert same(session.image, PICTURE)


def test_frames_can_be_awaited() -> None:
    async def follow() -> list[int]:
        with live() as drag:
            numbers = []
            for target in TARGETS:
                drag.move(target)
                numbers.append((await asyncio.wait_for(drag.next_frame(), ANSWER_S)).number)
            with pytest.raises(SessionError, match="nothing has moved"):
                await drag.next_frame()
            return numbers

    assert asyncio.run(follow()) == [1, 2, 3]


def test_a_frame_that_does_not_come_in_time() -> None:
    with live() as drag, busy(editor()):
        drag.move(TARGETS[0])
        with pytest.raises(DeadlineError, match=r"there was no frame within 0\.05 s"):
            drag.frame(0.05)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"method": "dragnoise", "config": None}, ConfigError, "cannot follow a pointer"),
        ({"method": "warp", "config": None}, ConfigError, "makes no frames with the model"),
        ({"config": FastConfig(iterations=4)}, ConfigError, "updates, got iterations=4"),
        ({"base": "last"}, SessionError, "begins at 'source' or 'result', not 'last'"),
        ({"preset": "live"}, ConfigError, "brings its method"),
        ({"on_frame": 5}, ConfigError, "on_frame must be a function, got 5"),
        ({"mask": np.ones((3, 3))}, Exception, "the mask is 3x3"),
    ],
)
def test_what_cannot_be_followed_is_refused(how: Any, error: Any, says: str) -> None:
    session = opened()
    with pytest.raises(error, match=says):
        live(session, **how)
    live(session).close()


@pytest.mark.parametrize("target", [(64, 3), (-1, 3), (3, 64), (float("nan"), 3), "there", 5, ()])
def test_a_target_that_is_none_is_refused(target: Any) -> None:
    with live() as drag:
        with pytest.raises(PointError):
            drag.move(target)
        answered(drag, TARGETS[0])


def test_a_source_that_cannot_be_prepared_is_told_once_a_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def fail(*args: object) -> None:
        tried.append(args)
        raise NumbersError("no numbers")

    monkeypatch.setattr("dragnoise.engine.session.live.FrameMaker", fail)
    with live() as drag:
        for number in range(1, 3):
            drag.move(TARGETS[0])
            with pytest.raises(NumbersError):
                drag.frame(ANSWER_S)
            with pytest.raises(SessionError, match="move first"):
                drag.frame(ANSWER_S)
            assert len(tried) <= number + 1  # one before any move


def test_a_release_or_a_frame_to_keep_needs_a_move() -> None:
    drag = live()
    with pytest.raises(SessionError, match="nothing has moved, so there is no drag to do"):
        drag.release()
    answered(drag, TARGETS[0])
    with pytest.raises(ConfigError, match="no preset 'quick'"):
        drag.release(preset="quick")
    drag.release(method="fast", config=QUICK)
    drag = live()
    with pytest.raises(SessionError, match="there is no frame to keep"):
        drag.keep()


def test_a_frame_is_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first runs as it is, the second is captured; handles and targets lie in its buffers."""
    captures = []

    def capture(work: Callable[[], None]) -> NullGraph:
        captures.append(work)
        return NullGraph(work)

    monkeypatch.setattr(frames, "graph_on", lambda device: capture)
    with live() as drag:
        pictures = [answered(drag, target).image for target in (*TARGETS, *TARGETS)]
    assert len(captures) == 1
    assert all(same(one, other) for one, other in zip(pictures[:3], pictures[3:], strict=True))


def test_a_small_decoder_serves_where_there_is_one() -> None:
    from diffusers import AutoencoderTiny

    small = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).eval()
    quick = Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, preview_vae=small)
    with live(opened(quick)) as drag:
        frame = answered(drag, TARGETS[0])
        refined = drag.release(method="fast", config=QUICK)
    with live() as drag:
        assert not same(frame.image, answered(drag, TARGETS[0]).image)
    own = opened().drag([(HANDLE, TARGETS[0])], method="fast", config=QUICK)
    assert same(refined.image, own.image)

"""Sessions: whatever was computed before, a drag gives the bits that it gives alone; what is known is not computed again; failure leaves no trace."""

import dataclasses
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
from diffusers import AutoencoderTiny
from hypothesis import HealthCheck, given, settings

from dragnoise.engine import (
    CancelledError,
    ConfigError,
    DeadlineError,
    DragConfig,
    Editor,
    EditResult,
    Image,
    InputWarning,
    OutputError,
    PointError,
    Session,
    SessionError,
    Store,
    stages,
)
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.methods import METHODS
from dragnoise.engine.session.session import Base
from dragnoise.engine.session.stream import Event, PreviewPacer
from dragnoise.engine.system.cuda_graphs import NullGraph
from golden_cases import GOLDEN, MODEL

QUICK = DragConfig(steps=10, strength=0.3, iterations=3, lr=0.02, lam=0.1)
PICTURE = Image(
    np.asarray(PIL.Image.open(GOLDEN / "images" / "face_256x256.png").convert("RGB"))[
        64:128, 64:128
    ]
)
ONE_BIT = PICTURE.pixels ^ (np.arange(64 * 64 * 3) == 100).reshape(64, 64, 3).astype(np.uint8)
MASK = np.tri(64, dtype=np.bool_)
POINTS = [((20, 20), (40, 34))]
FURTHER = [((20, 20), (44, 37))]
OTHERS = [((40, 44), (12, 30)), ((30, 10), (50, 12))]
FIRST = ["embed", "encode", "condition", "invert", "start"]
REST = ["drag", "propagate", "decode", "total"]


@cache
def editor() -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu")


def opened(editor: Editor | None = None, **how: Any) -> Session:
    return (editor or globals()["editor"]()).open(
        PICTURE, prompt="a face", **({"config": QUICK} | how)
    )


def same(one: EditResult | Image, other: EditResult | Image) -> bool:
    pictures = [value.image if isinstance(value, EditResult) else value for value in (one, other)]
    return bool((pictures[0].pixels == pictures[1].pixels).all())


def assert_same(one: EditResult, other: EditResult) -> None:
    assert same(one, other)
    np.testing.assert_array_equal(one.history.losses, other.history.losses)
    np.testing.assert_array_equal(one.history.handles, other.history.handles)
    assert (one.points, one.reached) == (other.points, other.reached)


# What is computed, and what is not


def test_a_first_drag_is_an_edit_and_the_next_starts_at_the_drag() -> None:
    session = opened()
    first = session.drag(POINTS, mask=MASK)
    assert_same(first, editor().edit(PICTURE, POINTS, mask=MASK, prompt="a face", config=QUICK))
    assert list(first.timings_ms) == FIRST + REST
    second = session.drag(OTHERS)
    assert list(second.timings_ms) == REST
    assert_same(second, editor().edit(PICTURE, OTHERS, prompt="a face", config=QUICK))
    assert second.cache == {}
    assert same(session.source, PICTURE)
    assert same(session.image, second)


def test_prepared_ahead() -> None:
    session, seen = opened(), []
    session.prepare(progress=lambda *said: seen.append(said))
    assert seen == [("invert", number, 3) for number in (1, 2, 3)]
    assert list(session.drag(POINTS).timings_ms) == REST


def test_a_store_serves_other_sessions_and_other_processes(tmp_path: Path) -> None:
    alone = editor().edit(PICTURE, POINTS, prompt="a face", config=QUICK)
    first = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path))
    assert_same(opened(first).drag(POINTS), alone)
    again = opened(first).drag(POINTS)
    assert list(again.timings_ms) == REST
    assert again.cache["stages"]["invert"]["hits"] == {"host": 1}
    second = Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=tmp_path))
    found = second.edit(PICTURE, POINTS, prompt="a face", config=QUICK)
    assert list(found.timings_ms) == ["condition", "start", *REST]
    assert found.cache["stages"]["invert"] == found.cache["stages"]["invert"] | {
        "hits": {"disk": 1},
        "misses": 0,
    }
    assert found.cache["stages"]["invert"]["saved_ms"] != 0
    assert_same(found, alone)


@pytest.mark.parametrize(
    ("what", "made"),
    [
        (lambda one: one.edit(PICTURE, POINTS, prompt="a face", config=QUICK.replace(iterations=1, lr=0.5, lam=0.0)), set()),
        (lambda one: one.edit(PICTURE, POINTS, prompt="two faces", config=QUICK), {"embed", "condition", "invert", "start"}),
        (lambda one: one.edit(PICTURE, POINTS, prompt="a face", config=QUICK.replace(steps=20)), {"condition", "invert", "start"}),
        (lambda one: one.edit(PICTURE, POINTS, prompt="a face", config=QUICK.replace(strength=0.5)), {"invert", "start"}),
        (lambda one: one.edit(PICTURE, POINTS, prompt="a face", config=QUICK.replace(guidance=2.0)), {"embed", "condition", "invert", "start"}),
        (lambda one: one.edit(ONE_BIT, POINTS, prompt="a face", config=QUICK), {"encode", "invert", "start"}),
        (lambda one: one.edit(PICTURE, POINTS, prompt="a face", config=QUICK, method="baseline"), set(FIRST)),
    ],
    ids=["settings of the drag", "prompt", "steps", "strength", "guidance", "one bit of the picture", "another method"],
)  # fmt: skip
def test_a_key_is_exactly_what_a_stage_depends_on(
    what: Callable[[Editor], EditResult], made: set[str]
) -> None:
    one = Editor.from_pretrained(MODEL, device="cpu", cache=Store())
    one.edit(PICTURE, POINTS, prompt="a face", config=QUICK)
    assert what(one).timings_ms.keys() - set(REST) == made


def test_other_weights_backends_and_precisions_have_other_keys() -> None:
    digests = {
        Editor.from_pretrained(MODEL, device="cpu", backend=backend, dtype=dtype).model.digest
        for backend in ("eager", "packed")
        for dtype in ("float32", "bfloat16")
    }
    changed = Editor.from_pretrained(MODEL, device="cpu", backend="eager")
    changed.model.unet.network.conv_in.weight.data[0, 0, 0, 0] += 1e-6
    assert len(digests | {changed.model.digest}) == 5
    methods = ("dragnoise", "baseline", "baseline-plain")
    assert len({METHODS[name].prepare(editor().model).digest for name in methods}) == 3
    used = Editor.from_pretrained(MODEL, device="cpu")
    used.edit(PICTURE, POINTS, config=QUICK)
    assert used.model.digest == editor().model.digest


def test_a_like_drag_uses_the_last_ones_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[object] = []

    class Recorded(NullGraph):
        def __init__(self, work: Callable[[], None]) -> None:
            captured.append(work)
            super().__init__(work)

    monkeypatch.setattr("dragnoise.engine.drag.loop.graph_on", lambda device: Recorded)
    session = opened()
    results = [session.drag(points, mask=MASK) for points in (POINTS, FURTHER, POINTS)]
    assert len(captured) == 1
    assert_same(results[0], results[2])
    assert not same(results[0], results[1])
    session.drag(OTHERS, mask=MASK)  # two handles
    session.drag(OTHERS)  # no mask
    session.drag(OTHERS, config=QUICK.replace(lr=0.03))
    assert len(captured) == 4


# Bases


def test_last_goes_on_where_the_drag_was() -> None:
    session, config = opened(), QUICK.replace(iterations=60, lr=0.05)
    near, further = [((20, 20), (26, 24))], [((20, 20), (28, 25))]
    arrived = session.drag(near, config=config)
    assert arrived.reached
    again = session.drag(near, config=config, base="last")
    assert (len(again.history.losses), again.reached) == (0, True)
    assert same(again, arrived)
    found = session.drag(further, config=config, base="last")
    assert found.history.handles[0].tolist() == arrived.history.handles[-1].tolist() == [[24, 22]]
    assert len(found.history.losses) > 0
    other = session.drag([*further, ((40, 44), (42, 50))], config=config, base="last")
    apart = other.history.handles[0, 1] - [
        40,
        44,
    ]  # new: where it is put, tracked once in the picture as it is now
    assert np.abs(apart).max() <= 2 * config.r_p


def test_last_compares_with_what_was_before_its_first_update() -> None:
    """Iteration 0 of the drag that goes on has a mask term: the picture has changed since the reference was taken."""
    session = opened()
    session.drag(POINTS, mask=MASK)
    first = session.drag(POINTS, mask=MASK, base="last", config=QUICK.replace(lam=5.0), record=True)
    assert first.record is not None
    cold = opened().drag(POINTS, mask=MASK, record=True)
    assert cold.record is not None
    for name in ("features", "noise"):
        one, other = (
            getattr(result.record.optimum.reference, name)
            for result in (first, cold)
            if result.record
        )
        assert (one == other).all(), name


def test_a_mask_that_holds_nothing_is_no_mask() -> None:
    session, white = opened(), np.ones((64, 64), np.bool_)
    session.drag(FURTHER)
    bases: tuple[Base, ...] = ("source", "last", "result")
    for base in bases:
        one = session.drag(POINTS, mask=white, base=base)
        session.undo()
        other = session.drag(POINTS, base=base)
        assert_same(one, other)


def test_result_is_the_picture_itself_and_inverting_is_not() -> None:
    session, still = opened(), QUICK.replace(iterations=0)
    made = session.drag(POINTS, config=QUICK.replace(iterations=10, lr=0.1))
    kept = session.drag(POINTS, base="result", config=still)
    assert same(kept, made)
    assert list(kept.timings_ms) == REST
    session.undo()
    anew = session.drag(POINTS, base="inverted", config=still)
    assert not same(anew, made)
    assert "invert" in anew.timings_ms
    assert same(session.source, made)


def test_result_is_inverted_where_its_inversion_does_not_hold() -> None:
    session = opened()
    session.drag(POINTS)
    assert session.drag(POINTS, base="result").settings["base"] == "result"
    other = session.drag(POINTS, base="result", config=QUICK.replace(strength=0.5))
    assert other.settings["base"] == "inverted"
    assert "invert" in other.timings_ms


def test_result_and_inverted_of_nothing_dragged_are_the_source() -> None:
    cold = opened().drag(POINTS)
    bases: tuple[Base, ...] = ("result", "inverted")
    for base in bases:
        assert_same(opened().drag(POINTS, base=base), cold)


def test_the_published_method_has_sessions_too() -> None:
    session = opened()
    first, second = (session.drag(POINTS, mask=MASK, method="baseline") for _ in range(2))
    assert_same(first, second)
    assert "invert" not in second.timings_ms
    with pytest.raises(SessionError, match="cannot go on: its method, its adapter"):
        session.drag(POINTS, base="last")


# The property


@dataclasses.dataclass(frozen=True)
class Drag:
    points: str
    masked: bool
    base: Base

    def on(self, session: Session) -> EditResult:
        return session.drag(self.points, mask=MASK if self.masked else None, base=self.base)


@cache
def alone(way: tuple[Drag, ...]) -> bytes:
    """What comes of these drags, in a session of its own, with an editor of its own that keeps nothing."""
    session = opened(Editor.from_pretrained(MODEL, device="cpu"))
    for drag in way:
        drag.on(session)
    return session.image.pixels.tobytes()


DRAGS = st.builds(
    Drag,
    st.sampled_from(["20,20:40,34", "20,20:44,37", "40,44:12,30 30,10:50,12"]),
    st.booleans(),
    st.sampled_from(["source", "source", "result", "inverted", "last"]),
)
ACTS = st.lists(
    st.one_of(DRAGS, DRAGS, st.sampled_from(["undo", "redo", "reopen", "restart", "restore"])),
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS)
def test_history_never_changes_a_bit(
    tmp_path_factory: pytest.TempPathFactory, acts: list[Drag | str]
) -> None:
    """Random sequences against a list of ways: how every picture came about, from the source on."""
    folder = tmp_path_factory.mktemp("cache")

    def started() -> Editor:
        return Editor.from_pretrained(MODEL, device="cpu", cache=Store(folder=folder))

    editor = started()
    ways: list[tuple[Drag, ...]] = [()]
    session, at = opened(editor), 0
    for act in acts:
        if isinstance(act, Drag):
            way = ways[at]
            if act.base == "last" and not way:
                with pytest.raises(SessionError, match="there is none"):
                    act.on(session)
                continue
            # From the source: what made the source, up to the last inversion on the way.
            made = [number for number, one in enumerate(way) if one.base == "inverted" and number]
            before = way if act.base != "source" else way[: made[-1]] if made else ()
            again = (
                (dataclasses.replace(act, base="inverted"),)
                if act.base == "source" and made
                else (act,)
            )
            act.on(session)
            ways[at + 1 :] = [(*before, *again)]
            at += 1
        elif act == "undo" and at:
            at -= 1
            session.undo()
        elif act == "redo" and at < len(ways) - 1:
            at += 1
            session.redo()
        elif act == "restore":
            session.save(folder / "session.safetensors")
            session = editor.restore(folder / "session.safetensors")
        elif act in ("reopen", "restart"):
            editor = started() if act == "restart" else editor
            session, ways, at = opened(editor), [()], 0
        if ways[at]:
            assert session.image.pixels.tobytes() == alone(ways[at])
        else:
            assert same(session.image, PICTURE)


# Undo and redo


def test_undo_and_redo() -> None:
    session = opened()
    pictures = [session.image, *(session.drag(points).image for points in (POINTS, OTHERS))]
    with pytest.raises(SessionError, match="nothing to redo"):
        session.redo()
    assert session.undo() is pictures[1] is session.image
    assert session.undo() is pictures[0]
    with pytest.raises(SessionError, match="nothing to undo"):
        session.undo()
    assert session.redo() is pictures[1]
    newer = session.drag(FURTHER, base="result").image
    with pytest.raises(SessionError, match="nothing to redo"):
        session.redo()
    assert session.undo() is pictures[1]
    assert session.redo() is newer


def test_what_can_be_undone_is_bounded() -> None:
    session = opened(undo_bytes=3 * 64 * 64 * 3)
    for points in (POINTS, OTHERS, FURTHER):
        session.drag(points)
    states = session._undo.states
    at = session._undo.at
    assert sum(state.nbytes for state in states) <= session._undo.limit_bytes
    assert at == len(states) - 1 < 3
    for _ in range(at):
        session.undo()
    with pytest.raises(SessionError, match="raise undo_bytes"):
        session.undo()
    with pytest.raises(ConfigError, match="undo_bytes must be 0 or more, got -1"):
        opened(undo_bytes=-1)


# Ending early


@pytest.mark.parametrize("stage", ["invert", "drag", "propagate"])
def test_cancelled_within_a_step_and_usable_after(stage: str) -> None:
    session, seen = opened(), []

    def progress(name: str, done: int, of: int) -> None:
        seen.append((name, done))
        if (name, done) == (stage, 1):
            session.cancel()

    with pytest.raises(CancelledError):
        session.drag(POINTS, progress=progress)
    assert seen[-1] == (stage, 1)
    assert same(session.image, PICTURE)
    assert session._loops._last is None or stage == "invert"
    session.cancel()  # nothing runs: nothing to cancel, now or later
    session.prepare()
    assert_same(session.drag(POINTS), opened().drag(POINTS))


def test_a_deadline() -> None:
    session = opened(config=QUICK.replace(iterations=10_000, lr=1e-6))
    with pytest.raises(DeadlineError, match=r"did not end within 0\.2 s"):
        session.drag(POINTS, timeout_s=0.2)
    assert same(session.image, PICTURE)
    assert session.drag(POINTS, config=QUICK, timeout_s=600).image is session.image
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="timeout_s must be above 0"):
            session.drag(POINTS, timeout_s=wrong)


def test_a_second_thread_waits() -> None:
    session, inside, results = opened(), threading.Event(), []

    def first() -> None:
        results.append(session.drag(POINTS, on_iteration=lambda _: inside.set()))

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(30)
    results.append(session.drag(OTHERS))
    thread.join()
    assert [len(result.points) for result in results] == [1, 2]
    assert same(session.image, results[1])


def test_what_a_callback_raises_leaves_the_session_usable() -> None:
    session = opened()

    def fails(*_: object) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as kept:
        session.drag(POINTS, on_iteration=fails)
    assert kept.tb is not None  # who keeps the error keeps its frames, but not the session
    assert_same(session.drag(POINTS), opened().drag(POINTS))


@pytest.mark.parametrize(
    ("inputs", "error", "said"),
    [
        ({"points": [((0, 0), (64, 0))]}, PointError, "outside the 64x64 image"),
        (
            {"points": POINTS, "base": "first"},
            SessionError,
            "no base 'first'; known: source, result, inverted, last",
        ),
        ({"points": POINTS, "base": "last"}, SessionError, "cannot go on: there is none"),
        ({"points": POINTS, "method": "none"}, ConfigError, "no method 'none'"),
    ],
)
def test_what_is_refused(inputs: dict[str, Any], error: type[Exception], said: str) -> None:
    session = opened()
    with pytest.raises(error, match=said):
        session.drag(**inputs)
    assert same(session.image, PICTURE)


# Streams


@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
@pytest.mark.parametrize("previews", [1, 2, "auto", None])
def test_previews_never_change_the_result(mask: Any, previews: Any) -> None:
    config = QUICK.replace(iterations=6)
    session = opened()
    *events, last = session.drag_stream(POINTS, mask=mask, config=config, previews=previews)
    assert last.result is not None
    alone = opened().drag(POINTS, mask=mask, config=config)
    assert_same(last.result, alone)
    assert same(session.image, alone)
    assert [event.iteration for event in events] == list(range(6))
    assert [event.loss for event in events] == alone.history.losses.tolist()
    ways = [list(event.points.handles) for event in events]
    assert ways == [
        [tuple(handle) for handle in handles] for handles in alone.history.handles.tolist()
    ]
    shown = [event.iteration for event in events if event.preview is not None]
    if previews != "auto":
        assert shown == ([] if previews is None else list(range(previews - 1, 6, previews)))


def test_a_preview_is_the_predicted_picture() -> None:
    """Of the first iteration: what the undragged network expects, decoded. It looks like the source, not like noise."""
    session = opened()
    event = next(iter(session.drag_stream(POINTS, mask=MASK, previews=1)))
    result = session.drag(POINTS, mask=MASK, record=True)
    assert result.record is not None
    place = result.record.scene.place
    model = place.model
    noise = place.schedule.noise(model.unet(place.latent, place.step), place.latent, place.timestep)
    clean = place.schedule.clean(noise, place.latent, place.timestep)
    frame = Frame.of(PICTURE, model.factor)
    expected = frame.image_of(stages.decode(model, clean))
    assert event.preview is not None
    assert np.abs(event.preview.pixels.astype(int) - expected.pixels).max() <= 1


def test_a_small_decoder_makes_the_previews() -> None:
    tiny = (
        AutoencoderTiny(encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(4,) * 4)
        .eval()
        .requires_grad_(False)
    )
    plain, small = (
        next(
            iter(
                opened(Editor.from_pretrained(MODEL, device="cpu", preview_vae=vae)).drag_stream(
                    POINTS, previews=1
                )
            )
        )
        for vae in (None, tiny)
    )
    assert small.preview is not None
    assert plain.preview is not None
    assert small.preview.pixels.shape == plain.preview.pixels.shape
    assert not same(small.preview, plain.preview)


def test_leaving_a_stream_cancels_the_drag() -> None:
    session = opened()
    for event in session.drag_stream(POINTS):
        assert isinstance(event, Event)
        break
    assert same(session.image, PICTURE)
    assert_same(session.drag(POINTS), opened().drag(POINTS))


def test_a_drag_inside_a_stream_is_refused() -> None:
    session = opened()
    stream = session.drag_stream(POINTS)
    next(stream)
    for act in (lambda: session.drag(POINTS), session.prepare, lambda: session.use_adapter(None)):
        with pytest.raises(SessionError, match="in the middle of a stream of this thread"):
            act()
    *_, last = stream
    assert last.result is not None
    assert_same(session.drag(POINTS), last.result)


def test_previews_keep_to_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of our own: iterations of 1 s, previews of 2 s; at no time have previews taken more than 15 % of the loop."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def loop() -> Any:
        for _ in range(200):
            now[0] += 1.0
            yield None

    def make() -> Image:
        now[0] += 2.0
        return PICTURE

    pace, shown = PreviewPacer("auto"), []
    for number, _ in enumerate(pace.timed(loop()), start=1):
        now[0] += 100.0  # the consumer's own time counts for nothing
        if pace.is_due():
            pace.make(make)
            shown.append(number)
        assert 2 * len(shown) <= 0.15 * number
    assert shown[0] == 17  # expected to cost 2.5 iterations
    assert len(shown) == 15
    remembered = PreviewPacer("auto", pace.cost_s)
    assert (
        next(
            number
            for number, _ in enumerate(remembered.timed(loop()), start=1)
            if remembered.is_due()
        )
        == 14
    )


def test_a_previews_share_is_of_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of our own, moved by the stages: an inversion of 1,000 s buys no previews of 2 s in a loop of 10 iterations of 1 s."""
    now, took = [0.0], {"invert": 1000.0, "drag": 1.0, "preview": 2.0}
    monkeypatch.setattr(
        "dragnoise.engine.session.stream.time", SimpleNamespace(perf_counter=lambda: now[0])
    )

    @contextmanager
    def moves(stage: str) -> Iterator[None]:
        yield
        now[0] += took.get(stage, 0.0)

    session = opened(Editor.from_pretrained(MODEL, device="cpu", observers=[moves]))
    session._preview_s = 2.0  # known from an earlier stream
    events = list(session.drag_stream(POINTS, config=QUICK.replace(iterations=10, lr=1e-6)))
    assert now[0] > 1000
    assert len(events) == 11
    assert not any(event.preview for event in events)
    longer = list(session.drag_stream(POINTS, config=QUICK.replace(iterations=30, lr=1e-6)))
    assert [event.iteration for event in longer if event.preview] == [13, 26]


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "often"])
def test_previews_are_checked(wrong: Any) -> None:
    with pytest.raises(
        ConfigError, match="previews must be 'auto', None or a number of iterations from 1"
    ):
        next(iter(opened().drag_stream(POINTS, previews=wrong)))


# Saving


RESTORED = """
import sys, json
from dragnoise.engine import Editor
stages = []
from contextlib import contextmanager
@contextmanager
def seen(stage):
    stages.append(stage)
    yield
editor = Editor.from_pretrained(sys.argv[1], device="cpu", observers=[seen])
session = editor.restore(sys.argv[2])
result = session.drag([((20, 20), (44, 37))], base="last")
result.image.save(sys.argv[3])
session.undo(); session.undo()
print(json.dumps([sorted(set(stages)), session.image.pixels[:3, :3, 0].tolist()]))
"""


def test_another_process_goes_on_without_inverting(tmp_path: Path) -> None:
    session = opened()
    first = session.drag(POINTS)
    path = session.save(tmp_path / "mine.safetensors")
    expected = session.drag(FURTHER, base="last")
    how = [sys.executable, "-c", RESTORED, str(MODEL), str(path), str(tmp_path / "out.png")]
    ended = subprocess.run(how, capture_output=True, text=True, check=True)
    assert '"drag"' in ended.stdout
    assert not {"encode", "invert"} & set(ended.stdout.replace('"', " ").replace(",", " ").split())
    assert same(Image.of(tmp_path / "out.png"), expected)
    assert str(PICTURE.pixels[:3, :3, 0].tolist()) in ended.stdout
    restored = editor().restore(path)
    assert same(restored.image, first)
    assert restored.config == QUICK


def test_a_generated_pictures_session_is_restored(tmp_path: Path) -> None:
    made = editor().generate("a face", size=(64, 64), config=QUICK.replace(guidance=2.0))
    session = editor().open(made)
    session.drag(POINTS)
    restored = editor().restore(session.save(tmp_path / "s.safetensors"))
    assert_same(restored.drag(OTHERS), session.drag(OTHERS))
    assert_same(restored.drag(POINTS, base="result"), session.drag(POINTS, base="result"))


def test_a_file_that_is_no_session(tmp_path: Path) -> None:
    session = opened()
    session.drag(POINTS)
    path = session.save(tmp_path / "s.safetensors")
    raw = path.read_bytes()
    for broken in (b"", raw[:-1], raw[:200], bytes([*raw[:-9], raw[-9] ^ 4, *raw[-8:]])):
        path.write_bytes(broken)
        with pytest.raises(SessionError, match="no session can be read from"):
            editor().restore(path)
    path.write_bytes(raw)
    with pytest.raises(SessionError, match="no session can be read from"):
        editor().restore(tmp_path / "none.safetensors")
    with pytest.raises(SessionError, match="saved with other weights, precision or backend"):
        Editor.from_pretrained(MODEL, device="cpu", backend="eager").restore(path)
    with pytest.raises(OutputError, match=r"use one of \.safetensors"):
        session.save(tmp_path / "s.bin")


def test_elsewhere_a_session_is_restored_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened()
    first = session.drag(POINTS)
    path = session.save(tmp_path / "s.safetensors")
    monkeypatch.setattr(
        "dragnoise.engine.session.file.environment_digest", lambda device: "another machine"
    )
    with pytest.warns(
        InputWarning, match="another machine, with other versions or another number of threads"
    ):
        restored = editor().restore(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(restored.image, first)


@pytest.mark.gpu
def test_on_cuda_a_like_drag_replays_the_last_ones_graph() -> None:
    one = Editor.from_pretrained(MODEL, device="cuda", backend="eager")
    session = one.open(PICTURE, prompt="a face", config=QUICK)
    first = session.drag(POINTS, mask=MASK)
    loop = session._loops._last
    assert loop is not None
    graph = loop._graph
    other = session.drag(FURTHER, mask=MASK)
    again = session.drag(POINTS, mask=MASK)
    assert session._loops._last is loop
    assert loop._graph is graph
    assert_same(first, again)
    assert not same(first, other)
    assert_same(other, one.edit(PICTURE, FURTHER, mask=MASK, prompt="a face", config=QUICK))

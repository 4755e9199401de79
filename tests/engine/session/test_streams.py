"""A drag to be watched: events, previews, and readers that are slow or leave."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderTiny

from dragnoise.engine import (
    ConfigError,
    Editor,
    Image,
    SessionError,
    stages,
)
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.session.stream import Event, PreviewPacer
from golden_cases import MODEL
from sessions import MASK, PICTURE, POINTS, QUICK, assert_same, opened, same


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
    """Of the first iteration: what the undragged network expects, decoded. It looks like the
    source, not like noise.
    """
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
                opened(
                    Editor.from_pretrained(
                        MODEL, device="cpu", check_pictures=False, preview_vae=vae
                    )
                ).drag_stream(POINTS, previews=1)
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
    """A clock of our own: iterations of 1 s, previews of 2 s; at no time have previews taken more
    than 15 % of the loop.
    """
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
    """A clock of our own, moved by the stages: an inversion of 1,000 s buys no previews of 2 s in a
    loop of 10 iterations of 1 s.
    """
    now, took = [0.0], {"invert": 1000.0, "drag": 1.0, "preview": 2.0}
    monkeypatch.setattr(
        "dragnoise.engine.session.stream.time", SimpleNamespace(perf_counter=lambda: now[0])
    )

    @contextmanager
    def moves(stage: str) -> Iterator[None]:
        yield
        now[0] += took.get(stage, 0.0)

    session = opened(
        Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, observers=[moves])
    )
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

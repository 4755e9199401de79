"""The same input gives the same bits, and whoever watches changes none."""

from functools import cache
from typing import Any

import pytest
import torch

from dragnoise.engine import DragConfig, Editor, EditResult
from golden_cases import MODEL, Case

STOPS = Case("dn01_short_early_stop")
EARLY = STOPS.config.replace(steps=10, strength=0.3, lr=0.03)
SHORT = DragConfig(steps=10, strength=0.3, iterations=10)


@cache
def editor(poll_every: int | None = None) -> Editor:
    return Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, poll_every=poll_every)


def inputs(stops: bool) -> dict[str, Any]:
    """An edit whose handle arrives before the iterations are used up; or one of two handles that do
    not.
    """
    if stops:
        return STOPS.edit_inputs() | {"config": EARLY, "record": False}
    return {
        "image": STOPS.image,
        "points": [(100, 90), (180, 120), (60, 200), (20, 220)],
        "prompt": "a ring",
        "config": SHORT,
    }


@cache
def plain(stops: bool) -> EditResult:
    return editor(1).edit(**inputs(stops))


@cache
def recorded(stops: bool, poll_every: int) -> EditResult:
    return editor(poll_every).edit(**inputs(stops) | {"record": True})


def assert_same_bits(mine: EditResult, yours: EditResult) -> None:
    assert (mine.image.pixels == yours.image.pixels).all()
    assert mine.history.losses.tobytes() == yours.history.losses.tobytes()
    assert mine.history.handles.tobytes() == yours.history.handles.tobytes()
    assert mine.points == yours.points
    assert mine.reached == yours.reached
    if mine.record is not None and yours.record is not None:
        for name in ("bottleneck", "final_latent", "pixels", "handles"):
            assert torch.equal(getattr(mine.record, name), getattr(yours.record, name)), name


both = pytest.mark.parametrize("stops", [True, False], ids=["stops early", "uses every iteration"])


def test_the_two_edits_are_what_they_are_called() -> None:
    early, late = plain(True), plain(False)
    updates = len(early.history.losses)
    assert early.reached
    assert 1 < updates < EARLY.iterations
    assert updates % 3 > 0, "a poll every third iteration sees the stop later than it comes"
    assert updates % 8 > 0
    assert not late.reached
    assert len(late.history.losses) == SHORT.iterations


@both
def test_again_after_another_edit_in_another_editor(stops: bool) -> None:
    assert_same_bits(
        Editor.from_pretrained(MODEL, device="cpu", check_pictures=False, poll_every=1).edit(
            **inputs(stops)
        ),
        plain(stops),
    )
    editor(1).edit(**inputs(not stops) | {"config": SHORT.replace(iterations=1)})
    assert_same_bits(editor(1).edit(**inputs(stops)), plain(stops))


@both
@pytest.mark.parametrize("poll_every", [3, 8])
def test_polling_less_often_changes_nothing(stops: bool, poll_every: int) -> None:
    assert_same_bits(recorded(stops, poll_every), recorded(stops, 1))


@both
def test_watching_changes_nothing(stops: bool) -> None:
    expected = plain(stops)
    assert_same_bits(recorded(stops, 1), expected)

    reported: list[tuple[str, int, int]] = []
    assert_same_bits(
        editor(1).edit(**inputs(stops), progress=lambda *said: reported.append(said)), expected
    )
    assert {stage for stage, _, _ in reported} == {"invert", "drag", "propagate"}
    assert all(1 <= done <= of for _, done, of in reported)

    seen: list[torch.Tensor] = []

    def watch(iteration: Any) -> None:
        assert iteration.forward.noise is not None
        seen.append(iteration.handles)

    assert_same_bits(editor(1).edit(**inputs(stops) | {"on_iteration": watch}), expected)
    assert len(seen) == len(expected.history.handles)


@both
def test_the_state_of_the_random_generator_is_neither_used_nor_moved(stops: bool) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert_same_bits(editor(1).edit(**inputs(stops)), plain(stops))
    assert torch.equal(torch.get_rng_state(), before)

"""Where a drag begins: source, result, inverted, last."""

import numpy as np
import pytest

from dragnoise.engine import InputWarning, SessionError
from dragnoise.engine.session.session import Base
from sessions import FURTHER, MASK, POINTS, QUICK, REST, assert_same, opened, same


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
    """Iteration 0 of the drag that goes on has a mask term: the picture has changed since the
    reference was taken.
    """
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
        with pytest.warns(InputWarning, match="marks all 4096 pixels as editable"):
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

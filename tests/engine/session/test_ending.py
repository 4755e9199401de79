"""Cancelled, too late or failed: the session is as it was."""

import threading
from typing import Any

import pytest

from dragnoise.engine import (
    CancelledError,
    ConfigError,
    DeadlineError,
    PointError,
    SessionError,
)
from sessions import OTHERS, PICTURE, POINTS, QUICK, assert_same, opened, same


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
    session.cancel()  # nothing runs: nothing to cancel, now or later
    session.prepare()
    assert_same(session.drag(POINTS), opened().drag(POINTS))


def test_a_deadline() -> None:
    session = opened(config=QUICK.replace(iterations=10_000, lr=1e-6))
    with pytest.raises(DeadlineError, match=r"did not end within 0\.2 s"):
        session.drag(POINTS, timeout_s=0.2)
    assert same(session.image, PICTURE)
    for enough in (600, 1e300, float("inf")):
        assert session.drag(POINTS, config=QUICK, timeout_s=enough).image is session.image
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="timeout_s must be above 0"):
            session.drag(POINTS, timeout_s=wrong)


def test_a_deadline_of_preparing() -> None:
    session = opened()
    with pytest.raises(DeadlineError, match=r"the preparation did not end within 0\.3 s"):
        session.prepare(QUICK.replace(steps=999, strength=1), timeout_s=0.3)
    session.prepare(timeout_s=600)
    assert_same(session.drag(POINTS), opened().drag(POINTS))


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

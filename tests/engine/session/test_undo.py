"""Undo and redo, bounded in bytes."""

import pytest

from dragnoise.engine import (
    ConfigError,
    SessionError,
)
from sessions import FURTHER, OTHERS, POINTS, opened


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

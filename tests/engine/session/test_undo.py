"""Undo and redo, bounded in bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragnoise.engine import (
    ConfigError,
    SessionError,
)
from dragnoise.engine.session.state import held_bytes
from sessions import FURTHER, OTHERS, POINTS, QUICK, editor, opened


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
    session = opened(undo_bytes=5 * 64 * 64 * 3)
    for points in (POINTS, OTHERS, FURTHER, POINTS):
        session.drag(points)
    at = session._undo.at
    assert held_bytes(session._undo.states) <= session._undo.limit_bytes
    assert at == len(session._undo.states) - 1 > 0
    for _ in range(at):
        session.undo()
    with pytest.raises(SessionError, match="raise undo_bytes"):
        session.undo()
    with pytest.raises(ConfigError, match="undo_bytes must be 0 or more, got -1"):
        opened(undo_bytes=-1)
    for wrong in (1e9, "1", None):
        with pytest.raises(ConfigError, match="undo_bytes must be a whole number of bytes, got a"):
            opened(undo_bytes=wrong)
    assert opened(undo_bytes=np.int64(5))._undo.limit_bytes == 5


def test_the_bound_holds_for_every_base_and_for_what_is_saved(tmp_path: Path) -> None:
    """Whatever a row of drags keeps: pictures, the sources and inversions of those before."""
    bound = 120_000
    session = opened(undo_bytes=bound, config=QUICK.replace(iterations=0))
    bases = ("source", "inverted", "result", "last", "inverted", "inverted", "source")
    for turn in range(21):
        base: Any = bases[turn % len(bases)]
        session.drag(POINTS, base=base, config=QUICK.replace(iterations=0, steps=10 + turn // 7))
        path = session.save(tmp_path / "s.safetensors")
        assert held_bytes(session._undo.states) <= bound
        assert path.stat().st_size <= 1.4 * bound  # the header is long beside latents of 8 x 8
    again = editor().restore(path)
    assert held_bytes(again._undo.states) <= bound
    assert len(again._undo.states) == len(session._undo.states) > 2


def test_what_is_shown_is_kept_whatever_it_takes() -> None:
    session = opened(undo_bytes=0)
    shown = session.drag(POINTS).image
    assert session.image is shown
    with pytest.raises(SessionError, match="nothing to undo"):
        session.undo()

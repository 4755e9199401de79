"""`bench live`: a pointer's path, what is noted of its frames, and the command."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from dragnoise.bench.__main__ import main
from dragnoise.bench.live.pointer import hand_path, read_path
from dragnoise.bench.live.replay import Arrivals, replay
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.session.live import LiveFrame
from sessions import PICTURE


def test_a_hand_begins_at_the_handle_and_stays_in_the_picture() -> None:
    path = hand_path((60, 50), (128, 96), 500, 120, 40)
    assert math.dist(path[0], (60, 50)) < 1
    assert all(0 <= x <= 127 and 0 <= y <= 95 for x, y in path)
    steps = [math.dist(*pair) for pair in itertools.pairwise(path)]
    assert 0.5 < max(steps) < 5  # no jumps
    assert max(math.dist(place, (60, 50)) for place in path) == pytest.approx(40, abs=1)
    assert path == hand_path((60, 50), (128, 96), 500, 120, 40)


def test_a_recorded_path(tmp_path: Path) -> None:
    file = tmp_path / "path.csv"
    file.write_text("1,2\n3.5,4\n")
    assert read_path(file) == [(1, 2), (3.5, 4)]
    for wrong in ("1,2,3\n", "here,there\n"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=r"path\.csv' is no list of x,y"):
            read_path(file)
    with pytest.raises(ConfigError, match=r"none\.csv' is no list"):
        read_path(tmp_path / "none.csv")


class Scripted:
    """A live drag whose frames answer certain moves, at once."""

    def __init__(self, arrivals: Arrivals, answers: dict[int, int]) -> None:
        self._arrivals = arrivals
        self._answers = answers
        self._moves = 0

    def move(self, place: Any) -> int:
        self._moves += 1
        if self._moves in self._answers:
            points: Any = None
            number = self._answers[self._moves]
            self._arrivals.note(LiveFrame(number, "model", PICTURE, points, 7.0))
        return self._moves


def replayed(answers: dict[int, int], events: int = 6) -> Any:
    arrivals = Arrivals()
    live: Any = Scripted(arrivals, answers)
    return replay(live, arrivals, [(1.0, 1.0)] * events, 1000)


def test_frames_that_bring_nothing_new_are_stale() -> None:
    fresh = replayed({2: 2, 4: 4, 6: 6})
    assert (fresh.frames, fresh.stale, fresh.settled) == (3, 0, True)
    assert replayed({2: 2, 4: 2, 6: 6}).stale == 1
    assert replayed({2: 2, 4: 1, 6: 6}).stale == 1


def test_an_overtaken_move_waits_for_the_next_frame() -> None:
    """Of six moves, a thousandth of a second apart, only the last has a frame."""
    found = replayed({6: 6})
    assert found.frames == 1
    assert found.latency_ms["p50"] == 7
    assert found.event_ms["p99"] > 4
    assert found.event_ms["p50"] > 1


def test_the_command_prints_a_record_and_keeps_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = "live --model golden --size 64 --device cpu --events 30 --rounds 0 --reach 6 --no-count"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    document = json.loads(out.splitlines()[-1])
    pointer = document["pointer"]
    assert (pointer["events"], pointer["stale"], pointer["settled"]) == (30, 0, True)
    assert 1 <= pointer["frames"] <= 30
    assert document["settings"] == {"steps": 5, "iterations": 0}
    assert document["ratios"] == {}
    assert "from a move to its frame (ms)" in out
    (kept,) = tmp_path.glob("*/*-live-golden-live-float32.json")
    assert json.loads(kept.read_text()) == document


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--events 0", "--events must be 1 or more, got 0"),
        ("--rounds -1", "--rounds must be 0 or more, got -1"),
        ("--preset fast", "invalid choice: 'fast'"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["live", *words.split()])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    assert says in capsys.readouterr().err

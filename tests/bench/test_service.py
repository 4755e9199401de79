"""The bench of a service: a real process, one client, a few visitors; never a time."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from dragnoise.bench.__main__ import main
from dragnoise.bench.report.service import alone_cells, pointer_cells, start_cells, visits_cells

VISITORS = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="visitors need locust: pip install 'dragnoise[load]'",
)


@VISITORS
def test_visitors_fail_in_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--users", "3", "--seconds", "6", "--moves", "2", "--sizes", "64", "--events", "60"]
    assert main(["service", *few, "--out", str(tmp_path)]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    kinds = record["visits"]["kinds"]
    assert record["visits"]["errors"] == []
    assert {"open", "delete"} <= kinds.keys()
    assert kinds["open"]["count"] == kinds["delete"]["count"] == 3
    assert kinds.keys() & {"pull and refine", "drag", "undo", "picture"}
    assert all(kind["failed"] == 0 for kind in kinds.values())
    assert 0 < record["alone"]["64"]["over_p50"] < record["alone"]["64"]["p50"]
    assert 0 < record["pointer"]["frames"] <= 60
    assert 0 < record["start"]["page_s"] <= record["start"]["ready_s"]
    (kept,) = tmp_path.rglob("*.json")
    assert json.loads(kept.read_text(encoding="utf-8")) == record


def test_tables() -> None:
    row: dict[str, Any] = {"p50": 200.0, "p95": 300.0, "over_p50": 1.0, "over_p95": 2.0}
    kind = {"count": 5, "failed": 0, "p50_ms": 10, "p95_ms": 20}
    record = {
        "users": 7,
        "start": {"page_s": 1.0, "ready_s": 8.0},
        "alone": {"128": row},
        "pointer": {
            "events": 60,
            "rate_hz": 120,
            "frames": 3,
            "p50": 200.0,
            "p95": 300.0,
            "grown_bytes_per_1000_events": 5000.0,
        },
        "visits": {"kinds": {"undo": kind, "drag": kind}, "refused": {"drag": 3}},
    }
    assert start_cells(record)[1] == ["1", "8"]
    assert alone_cells(record)[1] == ["128x128", "200 / 300", "1 / 2"]
    assert pointer_cells(record)[1] == ["60 events, 120 a second", "3", "200 / 300", "5"]
    header, *rows = visits_cells(record)
    assert header[0] == "7 visitors"
    assert rows == [["drag", "5", "0", "3", "10 / 20"], ["undo", "5", "0", "0", "10 / 20"]]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--users", "0"], "--users"),
        (["--seconds", "0"], "--seconds"),
        (["--sizes", "8"], "whole numbers from 16 to 2048, got '8'"),
        (["--sizes", "a,64"], "got 'a'"),
    ],
)
@VISITORS
def test_what_does_not_fit(
    option: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", *option]) == 2
    assert words in capsys.readouterr().err

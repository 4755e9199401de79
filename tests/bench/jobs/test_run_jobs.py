"""Jobs are done once, in shards or not, with the same results."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from dragnoise.bench.jobs import Ledger, Shard, run_jobs
from dragnoise.engine import ConfigError, ImageError

NAMES = [f"job{number}" for number in range(7)]


def work(name: str) -> dict[str, Any]:
    return {"value": Random(name).random(), "pair": (1, 2)}


def told(name: str) -> None:
    assert name


def test_every_job_has_its_result(tmp_path: Path) -> None:
    lines: list[str] = []
    results = run_jobs(NAMES, work, Ledger(tmp_path, {}), resume=False, watch=lines.append)
    assert list(results) == NAMES
    assert results["job3"] == {"value": Random("job3").random(), "pair": [1, 2]}
    assert lines[3] == "4 of 7: job3"


def test_shards_are_the_serial_run(tmp_path: Path) -> None:
    serial = run_jobs(NAMES, work, Ledger(tmp_path / "serial", {}), resume=False, watch=told)
    for index in (3, 1, 2):
        shard = Shard(index, 3)
        ledger = Ledger(tmp_path / "cut", {}, shard)
        run_jobs(shard.take(NAMES), work, ledger, resume=False, watch=told)
    assert Ledger(tmp_path / "cut", {}).done() == serial


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    ran: list[str] = []

    def interrupted(name: str) -> dict[str, Any]:
        if name == "job4" and "job4" not in ran:
            ran.append(name)
            raise KeyboardInterrupt
        ran.append(name)
        return work(name)

    with pytest.raises(KeyboardInterrupt):
        run_jobs(NAMES, interrupted, Ledger(tmp_path, {}), resume=False, watch=told)
    with pytest.raises(ConfigError, match="4 of 7 jobs have results already, 'job0' the first"):
        run_jobs(NAMES, interrupted, Ledger(tmp_path, {}), resume=False, watch=told)
    results = run_jobs(NAMES, interrupted, Ledger(tmp_path, {}), resume=True, watch=told)
    assert ran == [*NAMES[:5], *NAMES[4:]]
    whole = run_jobs(NAMES, work, Ledger(tmp_path / "whole", {}), resume=False, watch=told)
    assert results == whole


def test_a_job_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    def failing(name: str) -> dict[str, Any]:
        if name == "job2":
            raise ImageError("no picture\nat all")
        return work(name)

    lines: list[str] = []
    results = run_jobs(NAMES, failing, Ledger(tmp_path, {}), resume=False, watch=lines.append)
    assert results["job2"] == {"failed": "no picture at all"}
    assert "job2 failed: no picture at all" in lines
    lines.clear()
    results = run_jobs(NAMES, work, Ledger(tmp_path, {}), resume=True, watch=lines.append)
    assert lines == ["1 of 1: job2"]
    assert results["job2"]["value"] == Random("job2").random()


def test_a_mistake_in_the_work_is_raised(tmp_path: Path) -> None:
    def mistaken(name: str) -> dict[str, Any]:
        raise KeyError(name)

    with pytest.raises(KeyError):
        run_jobs(NAMES, mistaken, Ledger(tmp_path, {}), resume=False, watch=told)

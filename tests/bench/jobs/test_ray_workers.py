"""One command over several processes: the results of the serial run, whoever dies."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dragnoise.bench.jobs import Ledger, run_jobs
from dragnoise.bench.jobs.ray import Work, run_on_ray
from dragnoise.engine import ConfigError, ImageError, ModelError

NAMES = [f"job{number}" for number in range(8)]


def told(line: str) -> None:
    assert line


def make_work(killed: str = "", mark: Path | None = None) -> Work:
    """Return work that kills its process at a job: once, if there is a mark to leave."""

    def work(name: str) -> dict[str, Any]:
        if name == killed and not (mark is not None and mark.exists()):
            if mark is not None:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "job3":
            raise ImageError("no picture")
        return {"value": Random(name).random(), "process": os.getpid()}

    return work


def without_processes(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {field: value for field, value in result.items() if field != "process"}
        for name, result in results.items()
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray, started once; `run_on_ray` takes what is there."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'dragnoise[ray]')")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers know no tests
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ended_by = signal.getsignal(signal.SIGTERM)  # Ray's own handler would outlive it
    ray.init(
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    signal.signal(signal.SIGTERM, ended_by)
    yield
    ray.shutdown()


@pytest.fixture
def serial(tmp_path: Path) -> dict[str, dict[str, Any]]:
    ledger = Ledger(tmp_path / "serial", {})
    return without_processes(run_jobs(NAMES, make_work(), ledger, resume=False, watch=told))


@pytest.mark.usefixtures("cluster")
def test_workers_give_the_serial_run(tmp_path: Path, serial: dict[str, dict[str, Any]]) -> None:
    lines: list[str] = []
    ledger = Ledger(tmp_path / "ray", {})
    results = run_on_ray(NAMES, make_work, ledger, 2, watch=lines.append)
    assert without_processes(results) == serial
    assert list(results) == NAMES
    assert results["job3"] == {"failed": "no picture"}
    processes = {result["process"] for result in results.values() if "process" in result}
    assert os.getpid() not in processes
    assert any(line.endswith("of 8: job3 failed: no picture") for line in lines)
    with pytest.raises(ConfigError, match="8 of 8 jobs have results already"):
        run_on_ray(NAMES, make_work, ledger, 2, watch=told)
    done = run_on_ray(NAMES, make_work, ledger, 2, resume=True, watch=lines.append)
    assert done == results
    assert lines[-1] == "1 of 1: job3 failed: no picture"


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_nothing_where_another_try_helps(
    tmp_path: Path, serial: dict[str, dict[str, Any]]
) -> None:
    lines: list[str] = []
    mark = tmp_path / "mark"
    ledger = Ledger(tmp_path / "ray", {})
    results = run_on_ray(NAMES, lambda: make_work("job2", mark), ledger, 2, watch=lines.append)
    assert mark.exists()
    assert "the worker of job2 died; it is tried again" in lines
    assert without_processes(results) == serial


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_again_costs_its_job_alone(
    tmp_path: Path, serial: dict[str, dict[str, Any]]
) -> None:
    ledger = Ledger(tmp_path / "ray", {})
    results = run_on_ray(NAMES[:4], lambda: make_work("job2"), ledger, 2, retries=0, watch=told)
    assert results["job2"] == {"failed": "its worker died, 1 times"}
    del results["job2"]
    others = {name: serial[name] for name in NAMES[:4] if name != "job2"}
    assert without_processes(results) == others


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("error", [ModelError, KeyError])
def test_work_that_cannot_be_made_is_raised(error: type[Exception], tmp_path: Path) -> None:
    def no_work() -> Work:
        raise error("no model")

    ledger = Ledger(tmp_path / "ray", {})
    with pytest.raises(error, match=r"^'?no model'?$"):
        run_on_ray(NAMES, no_work, ledger, 2, watch=told)
    assert ledger.done() == {}


def test_without_ray_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'dragnoise\[ray\]'"):
        run_on_ray(NAMES, make_work, Ledger(tmp_path, {}), 2, watch=told)


def test_no_worker_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers must be 1 or more, got 0"):
        run_on_ray(NAMES, make_work, Ledger(tmp_path, {}), 0, watch=told)

"""Run jobs on Ray's workers, on this machine or on those of a cluster (RAY_ADDRESS).

Each worker makes its work once, a loaded model for example, and then does a job at a time. The
results are written here, by the one process that asks for them, and are those of `run_jobs`: a job
depends on nothing but its name. A worker that dies costs only its job, which is tried again, then
recorded as failed.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from dragnoise.engine.errors import ConfigError

from .ledger import Ledger
from .run import FAILED, outcome_of, results_of, to_do

__all__ = ["Work", "run_on_ray"]

Work: TypeAlias = Callable[[str], dict[str, Any]]
"""Does a job by its name."""

_OBJECTS_BYTES = 100 * 2**20
"""Ray's store of objects: results are small, and so it may be. Ray takes no less than 75 MiB."""


def run_on_ray(
    names: Sequence[str],
    make_work: Callable[[], Work],
    ledger: Ledger,
    workers: int,
    *,
    resume: bool = False,
    retries: int = 1,
    gpus: float = 0,
    watch: Callable[[str], None] = print,
) -> dict[str, dict[str, Any]]:
    """Do the jobs on workers and return their results, in the order of their names.

    Args:
        names: The jobs'.
        make_work: Called once in every worker.
        ledger: Keeps the results, as they come.
        workers: How many.
        resume: As for `run_jobs`.
        retries: How often a job is tried again whose worker died.
        gpus: Of each worker; 0.5: two share one.
        watch: Told a line when a job has ended.

    Raises:
        ConfigError: Ray is not installed, or there are results already.
    """
    if workers < 1:
        raise ConfigError(f"--workers must be 1 or more, got {workers}")
    waiting = to_do(names, ledger, resume)
    with _started(min(workers, max(len(waiting), 1))) as ray:
        crew = _Crew(ray, make_work, gpus)
        try:
            outcomes = _outcomes(crew, waiting, workers, retries, watch)
            for ended, (name, result) in enumerate(outcomes, 1):
                ledger.add(name, result)
                failed = f" failed: {result[FAILED]}" if FAILED in result else ""
                watch(f"{ended} of {len(waiting)}: {name}{failed}")
        finally:
            crew.dismiss()
    return results_of(names, ledger)


@contextmanager
def _started(workers: int) -> Iterator[Any]:
    """Give Ray, connected to the cluster that RAY_ADDRESS names, else to one of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import ray
    except ImportError as missing:
        raise ConfigError(
            "--workers needs Ray, which is not installed; run: pip install 'dragnoise[ray]'"
        ) from missing
    if ray.is_initialized():
        yield ray
        return
    ended_by = signal.getsignal(signal.SIGTERM)  # Ray would end the process in its own way
    ray.init(log_to_driver=False, logging_level="ERROR", **_cluster(workers))
    signal.signal(signal.SIGTERM, ended_by)
    try:
        yield ray
    finally:
        ray.shutdown()


def _cluster(workers: int) -> dict[str, Any]:
    """Return how Ray is started: on this machine alone, unless RAY_ADDRESS says where it runs."""
    if os.environ.get("RAY_ADDRESS"):
        return {}
    return {
        "num_cpus": workers,
        "object_store_memory": _OBJECTS_BYTES,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, make_work: Callable[[], Work]) -> None:
        self._make_work = make_work
        self._work: Work | None = None

    def do(self, name: str) -> dict[str, Any]:
        """Return a job's result, or why it failed; what making the work raises is raised."""
        if self._work is None:
            self._work = self._make_work()
        return outcome_of(self._work, name)


class _Crew:
    """Hires workers and hands them jobs.

    Args:
        ray: Ray, started.
        make_work: Called once in every worker.
        gpus: Of each.
    """

    def __init__(self, ray: Any, make_work: Callable[[], Work], gpus: float) -> None:
        self.ray = ray
        self._make_work = ray.put(make_work)
        self._kind = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
        self._hired: list[Any] = []

    def hire(self) -> Any:
        """Return a new worker."""
        self._hired.append(self._kind.remote(self._make_work))
        return self._hired[-1]

    def dismiss(self) -> None:
        """End all workers, so that others have their processors."""
        for worker in self._hired:
            self.ray.kill(worker)

    def result(self, job: Any) -> dict[str, Any] | None:
        """Return an ended job's result; None if its worker died."""
        raised = self.ray.exceptions
        try:
            result: dict[str, Any] = self.ray.get(job)
        except raised.RayTaskError as mistaken:
            raise mistaken.cause from mistaken
        except raised.RayError:  # it was killed, or its machine is gone
            return None
        return result


def _outcomes(
    crew: _Crew, waiting: Sequence[str], workers: int, retries: int, watch: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every job's name and result, as they end."""
    left = deque(waiting)
    tries = dict.fromkeys(waiting, 0)
    idle = [crew.hire() for _ in range(min(workers, len(left)))]
    busy: dict[Any, tuple[str, Any]] = {}
    while left or busy:
        while left and idle:
            name, worker = left.popleft(), idle.pop()
            tries[name] += 1
            busy[worker.do.remote(name)] = (name, worker)
        ended, _ = crew.ray.wait(list(busy), num_returns=1)
        name, worker = busy.pop(ended[0])
        result = crew.result(ended[0])
        idle.append(crew.hire() if result is None else worker)
        if result is not None:
            yield name, result
        elif tries[name] <= retries:
            watch(f"the worker of {name} died; it is tried again")
            left.append(name)
        else:
            yield name, {FAILED: f"its worker died, {tries[name]} times"}

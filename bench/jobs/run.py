"""Run jobs one after the other; each result is kept as it comes, so that a run can be resumed."""

from collections.abc import Callable, Sequence
from typing import Any

from dragnoise.engine.errors import ConfigError, DragnoiseError

from .ledger import Ledger

__all__ = ["FAILED", "outcome_of", "results_of", "run_jobs", "to_do"]

FAILED = "failed"
"""The only field of the result of a job that failed: why, in one line."""


def run_jobs(
    names: Sequence[str],
    work: Callable[[str], dict[str, Any]],
    ledger: Ledger,
    *,
    resume: bool,
    watch: Callable[[str], None] = print,
) -> dict[str, dict[str, Any]]:
    """Do the jobs and return their results, in the order of their names.

    What a job raises as DragnoiseError is its result, {"failed": why}, and the others go on.

    Args:
        names: The jobs'.
        work: Does one; its result must depend on nothing but the name, and be ready for JSON.
        ledger: Keeps the results.
        resume: Leave out what is done; what failed is tried again. Without it, it is an error if
            some of it is done.
        watch: Told a line before each job.

    Raises:
        ConfigError: There are results already.
    """
    waiting = to_do(names, ledger, resume)
    for place, name in enumerate(waiting, 1):
        watch(f"{place} of {len(waiting)}: {name}")
        result = outcome_of(work, name)
        if FAILED in result:
            watch(f"{name} failed: {result[FAILED]}")
        ledger.add(name, result)
    return results_of(names, ledger)


def to_do(names: Sequence[str], ledger: Ledger, resume: bool) -> list[str]:
    """Return the jobs that have no result yet, or failed. Raises ConfigError; see `run_jobs`."""
    done = ledger.done()
    there = [name for name in names if name in done]
    if there and not resume:
        raise ConfigError(
            f"{len(there)} of {len(names)} jobs have results already, {there[0]!r} the first; "
            "resume the run, or name another folder"
        )
    return [name for name in dict.fromkeys(names) if FAILED in done.get(name, {FAILED: ""})]


def outcome_of(work: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    """Return a job's result, or why it failed."""
    try:
        return work(name)
    except DragnoiseError as failed:
        return {FAILED: " ".join(str(failed).split("\n"))}


def results_of(names: Sequence[str], ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Return the results of these jobs, in their order."""
    done = ledger.done()
    return {name: done[name] for name in names}

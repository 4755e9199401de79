"""Run the steps of a campaign within a budget of time.

Every step is a process of its own. What it printed lies in OUT/NAME.log, records of the bench in
OUT/records, a line a step in OUT/summary.json, which is written after every step: a run that is cut
off still tells, and one that is started again goes on with the steps that are not done.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from dragnoise.engine.errors import ConfigError
from dragnoise.engine.system.files import write_whole

from .steps import STEPS, Asked, Step

__all__ = ["ARCHIVE", "Outcome", "campaign", "chosen"]

ARCHIVE = "campaign.tar.gz"
"""All logs and records in one file, for machines from which few files come back."""

_LEAST_S = 15.0
"""No step is begun with less time left."""


class Outcome(TypedDict):
    """How a step ended.

    Attributes:
        step: its name.
        rc: the exit code; "time" if it took too long; "skipped" if no time was left.
        s: seconds that it took.
    """

    step: str
    rc: int | str
    s: float


def chosen(names: str | None, first: str | None) -> tuple[Step, ...]:
    """Return the steps of these names, with commas between them, from the first one named on.

    Raises:
        ConfigError: For a name that no step has.
    """
    known = [step.name for step in STEPS]
    wanted = known if names is None else names.split(",")
    for name in (*wanted, *([] if first is None else [first])):
        if name not in known:
            raise ConfigError(f"there is no step {name!r}; use {', '.join(known)}")
    begin = 0 if first is None else known.index(first)
    return tuple(step for step in STEPS[begin:] if step.name in wanted)


def campaign(steps: Sequence[Step], asked: Asked, out: Path, budget_s: float) -> list[Outcome]:
    """Run steps in order until the budget is spent and return how each ended.

    A step that ended well in an earlier run into the same folder is not run again.

    Args:
        steps: What is asked.
        asked: What it is asked on.
        out: A folder.
        budget_s: For all together.
    """
    asked.records.mkdir(parents=True, exist_ok=True)
    outcomes = _earlier(out)
    done = {outcome["step"] for outcome in outcomes}
    ends = time.monotonic() + budget_s
    for step in steps:
        if step.name in done or asked.device not in step.devices:
            continue
        outcomes.append(_ask(step, asked, out, ends - time.monotonic()))
        _keep(out, outcomes)
    _archive(out)
    return outcomes


def _earlier(out: Path) -> list[Outcome]:
    summary = out / "summary.json"
    if not summary.exists():
        return []
    outcomes: list[Outcome] = json.loads(summary.read_text(encoding="utf-8"))
    return [outcome for outcome in outcomes if outcome["rc"] == 0]


def _ask(step: Step, asked: Asked, out: Path, left_s: float) -> Outcome:
    """Run one step and show the end of what it printed."""
    if left_s < _LEAST_S:
        return Outcome(step=step.name, rc="skipped", s=0.0)
    begin = time.monotonic()
    log = out / f"{step.name}.log"
    own = replace(asked, records=asked.records / step.name)
    rc = _run(step.command(own), log, min(step.limit_s, left_s))
    outcome = Outcome(step=step.name, rc=rc, s=round(time.monotonic() - begin, 1))
    print(f"== {step.name}: {step.question} rc {rc}, {outcome['s']} s", file=sys.stderr)
    for line in _tail(log, 14 if rc == 0 else 40):
        print(line[:200], file=sys.stderr, flush=True)
    return outcome


def _run(command: Sequence[str], log: Path, limit_s: float) -> int | str:
    """Run a command in a process group of its own and return its exit code, or "time"."""
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return "time"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its own children, too
                process.wait()


def _tail(log: Path, lines: int) -> Iterator[str]:
    yield from log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _keep(out: Path, outcomes: Sequence[Outcome]) -> None:
    text = json.dumps(outcomes, indent=1) + "\n"
    write_whole(out / "summary.json", lambda path: path.write_text(text, encoding="utf-8"))


def _archive(out: Path) -> None:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz") as tar:
            for file in [*sorted(out.glob("*.log")), out / "records", out / "summary.json"]:
                if file.exists():
                    tar.add(file, arcname=file.name)

    write_whole(out / ARCHIVE, write)

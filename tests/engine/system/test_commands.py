"""Other programs run no longer than the job that wants them."""

import os
import sys
from pathlib import Path

import pytest

from dragnoise.engine import CancelledError, DeadlineError
from dragnoise.engine.system import commands
from dragnoise.engine.system.commands import finished
from dragnoise.engine.system.worker import Job, Worker

SLEEP = """
import os, signal, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + "_", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + "_", sys.argv[1])
time.sleep(60)
"""


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_a_program_says() -> None:
    said = "import sys; print('out' * 99_999); print('no', file=sys.stderr); sys.exit(3)"
    done = finished([sys.executable, "-c", said])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out" * 99_999 + "\n", "no\n")


@pytest.mark.parametrize("kind", ["quick", "deaf"])
def test_a_program_ends_with_its_job(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not listen."""
    monkeypatch.setattr(commands, "_GRACE_S", 0.3)
    file = tmp_path / "process"
    command = [sys.executable, "-S", "-c", SLEEP, str(file), kind]
    worker = Worker()
    job: Job[object] = worker.submit(lambda job: finished(command), what="the work")
    while not file.exists():
        assert not job.has_ended()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result()
    assert gone(int(file.read_text()))


def test_a_program_ends_at_a_deadline() -> None:
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    job: Job[object] = Worker().submit(
        lambda job: finished(command), what="the export", timeout_s=0.2
    )
    with pytest.raises(DeadlineError, match=r"the export did not end within 0\.2 s"):
        job.result()


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        finished(["/no/such/program"])

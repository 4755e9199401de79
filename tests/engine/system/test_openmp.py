"""How threads wait is settled by the load, before PyTorch is loaded, and never against the user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dragnoise.engine.system.openmp import tune_openmp


@pytest.mark.parametrize(
    ("busy_share", "spins"), [(0.0, "20000"), (0.24, "20000"), (0.26, "0"), (3.0, "0")]
)
def test_threads_spin_where_the_machine_is_idle(
    busy_share: float, spins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (8 * busy_share, 0.0, 0.0))
    tune_openmp()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("PASSIVE", spins)


def test_what_the_user_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    tune_openmp()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("ACTIVE", "7")


def test_it_does_not_load_pytorch() -> None:
    program = (
        "import sys; from dragnoise.engine.system.openmp import tune_openmp; "
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


TEAMS = """
import os
import torch
from dragnoise.engine.system.openmp import release_openmp
from dragnoise.engine.system.worker import Worker

def threads():
    return len(os.listdir("/proc/self/task"))

def compute(*_):
    return torch.ones(1000, 1000).exp_()

torch.set_num_threads(2)
compute()
with_team = threads()
release_openmp()
assert threads() == with_team - 1, (with_team, threads())
release_openmp()  # none to give back
compute()
assert threads() == with_team, "it makes new ones when it needs"

worker = Worker()
worker.submit(compute, what="work").result()
worker.submit(lambda job: None, what="nothing").result()
compute()
import time
for _ in range(200):
    if threads() == with_team + 1:
        break
    time.sleep(0.01)
# The caller's team, and the worker's own thread: neither keeps a team for the other to trip over.
assert threads() == with_team + 1, (with_team, threads())
print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system shows no threads")
def test_who_hands_work_over_gives_its_threads_back() -> None:
    """Two teams at once are more threads than processors, and all of them sleep: 1.7 times slower.

    In a process of its own: here other tests have teams.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", TEAMS], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout.strip() == "done", done.stderr

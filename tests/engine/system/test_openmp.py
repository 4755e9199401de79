"""How threads wait is settled by the load, before PyTorch is loaded, and never against the user."""

import os
import subprocess
import sys

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

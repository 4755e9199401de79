"""How OpenMP's threads wait for each other.

It is set before PyTorch is loaded, which reads it once; what the user has set stands. Small models
are hundreds of short parallel regions. Threads that spin between them are at once there for the
next; on a machine that is busy with anything else they keep the others from working. Measured on
two cores of a Xeon, the embedded model, two threads, seconds of an edit:

    spins           0 (asleep at once)      20,000
    idle machine    3.1                     1.6
    one core busy   2.7                     9.6
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["release_openmp", "release_openmp_at_forks", "tune_openmp"]

_SPINS = "20000"
_SOFT = 1
"""`omp_pause_soft`: what the threads know is kept."""


def tune_openmp() -> None:
    """Let threads spin for a moment if the machine has been idle, else sleep at once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS if _is_idle() else "0")


def _is_idle() -> bool:
    """Whether less than a quarter of the cores were busy in the last minute; not if unknown."""
    try:
        return os.getloadavg()[0] < (os.cpu_count() or 1) / 4
    except (AttributeError, OSError):  # Windows has none; a container may have no /proc
        return False


def release_openmp() -> None:
    """Give back the OpenMP threads that the calling thread keeps; it makes new ones when it needs.

    Every thread that computes keeps a team. With more of them in a process than there are
    processors, GNU's OpenMP lets all of them sleep at once, as in the table's first line. So a
    thread that hands its work to another gives its own back first.
    """
    for pause in _pauses():
        pause(_SOFT)


@cache
def release_openmp_at_forks() -> None:
    """Give back the threads of whoever forks this process, from now on, before it does.

    The fork has none of them, and GNU's OpenMP would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=release_openmp)


@cache
def _pauses() -> tuple[Callable[[int], int], ...]:
    """Find `omp_pause_resource_all` (OpenMP 5.0) in every GNU OpenMP that is loaded."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return ()
    lines = maps.read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}
    libraries = [ctypes.CDLL(path) for path in sorted(paths)]
    name = "omp_pause_resource_all"
    return tuple(getattr(library, name) for library in libraries if hasattr(library, name))

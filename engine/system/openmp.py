"""How OpenMP's threads wait for each other.

It is set before PyTorch is loaded, which reads it once; what the user has set stands. Small models
are hundreds of short parallel regions. Threads that spin between them are at once there for the
next; on a machine that is busy with anything else they keep the others from working. Measured on
two cores of a Xeon, the embedded model, two threads, seconds of an edit:

    spins           0 (asleep at once)      20,000
    idle machine    3.1                     1.6
    one core busy   2.7                     9.6
"""

import os

__all__ = ["tune_openmp"]

_SPINS = "20000"


def tune_openmp() -> None:
    """Let threads spin for a moment if the machine has been idle, else sleep at once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS if _is_idle() else "0")


def _is_idle() -> bool:
    """Whether less than a quarter of the cores were busy in the last minute."""
    if not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] < (os.cpu_count() or 1) / 4

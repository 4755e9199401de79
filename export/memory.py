"""The most memory that this process held while something was done."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Peak", "peak_memory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """nbytes: resident, with all that the process held before. Where the system cannot forget an earlier peak, the largest so far."""

    nbytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    found = Peak()
    with suppress(OSError):
        _RESET.write_text("5")  # Linux: forget the peak of the resident set
    try:
        yield found
    finally:
        found.nbytes = _peak()


def _peak() -> int:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""The memory that this process holds, and the most that it held. Only Linux tells."""

from contextlib import suppress
from pathlib import Path

__all__ = ["forget_peak", "peak_of_process", "resident_of_process"]

_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Count the peak from here on, where the system allows it."""
    with suppress(OSError):
        _FORGET.write_text("5")


def peak_of_process() -> int | None:
    """Return the most bytes that were resident since then; None where the system does not tell."""
    return _said("VmHWM:")


def resident_of_process() -> int | None:
    """Return the bytes that are resident now; None where the system does not tell."""
    return _said("VmRSS:")


def _said(name: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None

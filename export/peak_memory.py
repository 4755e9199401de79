"""The most memory that this process held, since it was last asked to forget. Linux alone says so."""

from contextlib import suppress
from pathlib import Path

__all__ = ["forget_peak", "peak_of_process"]

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """The peak is counted from here, where the system allows it."""
    with suppress(OSError):
        _FORGET.write_text("5")


def peak_of_process() -> int | None:
    """Bytes resident at most since then; None where the system does not say."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None

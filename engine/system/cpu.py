"""The processor, as the system describes it."""

import platform
from functools import cache
from pathlib import Path

__all__ = ["cpu_features", "cpu_flags", "cpu_name"]

_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
)


def cpu_name() -> str:
    """Return the processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Return the instruction sets that it has, of those that matter here."""
    flags = cpu_flags()
    return [feature for feature in _FEATURES if feature in flags]


def cpu_flags() -> frozenset[str]:
    """Return every instruction set that it has; none if the system does not tell."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


@cache
def _cpuinfo(key: str) -> str | None:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)

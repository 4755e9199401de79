"""What a figure was measured on: hardware, versions, threads, commit. Part of every record."""

import datetime
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from dragnoise.engine.system.cpu import cpu_features, cpu_name
from dragnoise.engine.system.packages import versions

__all__ = ["device_slug", "machine"]

_ROOT = Path(__file__).parents[2]


def machine(device: torch.device) -> dict[str, Any]:
    """Everything about this machine that a figure depends on, as JSON holds it."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "device": str(device),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("OMP_", "MKL_", "GOMP_"))
        },
        "versions": versions(),
        "gpu": _gpu(),
    }


def device_slug(device: torch.device) -> str:
    """The folder of a device's records: its name in small letters."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    known = " ".join(name.split()) + ("" if device.type == "cuda" else " " + "-".join(_vectors()))
    return re.sub(r"[^a-z0-9]+", "-", known.lower()).strip("-")


def _vectors() -> list[str]:
    """What tells processors apart that hide their names: the widest of what they have."""
    order = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve", "asimd")
    return [feature for feature in order if feature in cpu_features()][:1]


def _git(*asked: str) -> str | None:
    """None outside a checkout, or without git."""
    try:
        said = subprocess.run(
            ["git", *asked], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def _gpu() -> dict[str, Any]:
    """Name, driver, clocks, power, use and memory by NVML; or why there is nothing to say."""
    try:
        import pynvml
    except ImportError:
        return {"absent": "nvidia-ml-py is not installed"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as refused:
        return {"absent": str(refused)}
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return {
            "name": pynvml.nvmlDeviceGetName(handle),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "utilisation_percent": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            "memory_bytes": {"used": memory.used, "total": memory.total},
        }
    except pynvml.NVMLError as refused:
        return {"absent": str(refused)}
    finally:
        pynvml.nvmlShutdown()

"""Describe what a figure was measured on: hardware, versions, threads, commit."""

import datetime
import os
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from dragnoise.engine.system.cpu import cpu_features, cpu_name
from dragnoise.engine.system.packages import versions
from dragnoise.kernels.has_native import has_native

__all__ = ["commit", "device_slug", "machine", "slug_of"]

_ROOT = Path(__file__).parents[2]


def machine(device: torch.device) -> dict[str, Any]:
    """Return all that a figure depends on of this machine, as every record holds it."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _head(),
        "changed": _is_changed(),
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
        "native": has_native(),
        "gpu": _gpu(),
    }


def commit() -> str | None:
    """Name the checkout's commit, "-changed" behind it if files differ; None outside of one."""
    head = _head()
    return head and head + "-changed" * _is_changed()


def _head() -> str | None:
    return _git("rev-parse", "--short", "HEAD")


def _is_changed() -> bool:
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def device_slug(device: torch.device) -> str:
    """Name the folder of a device's records: the device's name in small letters."""
    name = f"{cpu_name()} {_widest_vectors(cpu_features())}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return _slug(name)


def slug_of(machine: Mapping[str, Any]) -> str:
    """Name the folder of the records of a machine that `machine` described, here or elsewhere."""
    name = f"{machine['cpu']} {_widest_vectors(machine['cpu_features'])}"
    return _slug(name if machine["device"] == "cpu" else machine["gpu"]["name"])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _widest_vectors(features: Collection[str]) -> str:
    """Return the widest vector instructions, which tell processors apart that hide their names."""
    order = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve", "asimd")
    return next((feature for feature in order if feature in features), "")


def _git(*arguments: str) -> str | None:
    """Run git in the checkout; return None outside of one, or without git."""
    command = ["git", *arguments]
    try:
        run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _gpu() -> dict[str, Any]:
    """Read name, driver, clocks, power, use and memory by NVML, or the reason why that fails."""
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

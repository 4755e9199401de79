"""What this installation has and what it runs on, as data: for `dragnoise info` and for every benchmark's record."""

import importlib.util
import platform
from typing import Any

import torch

from ..backends import ATTENTION, BACKENDS, Choice
from ..diffusion.model import Model
from ..system.cpu import cpu_features, cpu_name
from ..system.packages import versions

__all__ = ["about", "backends", "versions"]


def about(model: Model) -> dict[str, Any]:
    """Versions, devices, threads and the model, by name; "-" where a package is not installed."""
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **versions(),
        "python": platform.python_version(),
        "native": "built" if importlib.util.find_spec("dragnoise.kernels._native") else "missing",
        "cpu": cpu_name(),
        "cpu features": cpu_features(),
        "threads": torch.get_num_threads(),
        "cuda devices": cuda or "none",
        "model": model.name,
        "model parameters": sum(weight.numel() for weight in model.unet.network.parameters()),
        "model device": str(model.device),
        "model dtype": str(model.dtype).removeprefix("torch."),
        "model settings": str(model.defaults),
    }


def backends(model: Model, running: Choice) -> dict[str, Any]:
    """Who runs the network, and of every other backend and attention either that it could or why it cannot."""
    could = {name: row.objections(model) for name, row in BACKENDS.items()}
    could |= {name: row.objections(model.device, model.dtype) for name, row in ATTENTION.items()}
    said = running.to_dict()
    return {
        "running": f"{said['backend']} with {said['attention']} attention",
        **{
            f"can use {name}": f"no: {'; '.join(reasons)}" if reasons else "yes"
            for name, reasons in could.items()
        },
    }

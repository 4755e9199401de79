"""What a command line asks to be measured: which picture, on which model, where."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from dragnoise.engine.cli.options import set_threads
from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.system.device import choose_device

from ..report.machine import machine
from .edits import Case
from .models import model

__all__ = ["about_of", "case_of", "device_of", "model_of", "size_of", "watch"]


def size_of(parsed: Namespace) -> tuple[int, int]:
    """Return (height, width) of the picture."""
    if parsed.size is not None:
        return (parsed.size[0], parsed.size[1])
    side = 128 if parsed.model == "embedded" else 512
    return side, side


def device_of(parsed: Namespace) -> torch.device:
    """Return the device that things run on."""
    return choose_device(parsed.device)


def model_of(parsed: Namespace) -> Model:
    """Load the model."""
    return model(parsed.model, parsed.device, parsed.dtype)


def case_of(parsed: Namespace) -> Case:
    """Return the edit that is measured, and how much of it is run."""
    whole = DragConfig(iterations=parsed.iterations, lr=1e-4)
    strength = None if parsed.run_steps is None else parsed.run_steps / whole.steps
    run = whole.replace(iterations=parsed.run_iterations, strength=strength)
    return Case(size_of(parsed), not parsed.no_mask, whole, run)


def about_of(parsed: Namespace, bench: str) -> dict[str, Any]:
    """Return what every record begins with, having set the number of threads."""
    set_threads(parsed.threads)
    height, width = size_of(parsed)
    return {
        "bench": bench,
        "model": Path(parsed.model).name,
        "size": f"{width}x{height}",
        "dtype": parsed.dtype,
        "rounds": parsed.rounds,
        "machine": machine(device_of(parsed)),
    }


def watch(what: str) -> None:
    """Say on stderr what is measured next."""
    print(f"{what} ...", file=sys.stderr, flush=True)

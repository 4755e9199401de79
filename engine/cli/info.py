"""`dragnoise info`: what this installation has and what it runs on.

The same as data is part of every benchmark's record.
"""

import platform
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from ..system.cpu import cpu_features, cpu_name
from ..system.packages import versions
from .cache import cache_summary
from .options import METHOD_SETTINGS, add_json_option, add_model_options, load_editor
from .program import Command
from .show import print_json

if TYPE_CHECKING:
    from ..backends import Choice
    from ..diffusion.model import Model

__all__ = ["INFO", "about", "backends"]


def about(model: "Model") -> dict[str, Any]:
    """Return versions, devices, threads and the model, by name."""
    import torch

    from dragnoise.kernels.has_native import why_no_native

    why = why_no_native()
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **versions(),
        "python": platform.python_version(),
        "native": f"missing ({why}): formulas run, slower" if why else "built",
        "cpu": cpu_name(),
        "cpu features": cpu_features(),
        "threads": torch.get_num_threads(),
        "cuda devices": cuda or "none",
        "model": model.name,
        "model parameters": sum(weight.numel() for weight in model.unet.held.network.parameters()),
        "model device": str(model.device),
        "model dtype": str(model.dtype).removeprefix("torch."),
        "model settings": str(model.defaults),
    }


def backends(model: "Model", running: "Choice") -> dict[str, str]:
    """Return what runs the network, and of every backend and attention whether it could."""
    from ..backends import ATTENTION, BACKENDS

    objections = {name: row.objections(model) for name, row in BACKENDS.items()}
    objections |= {
        name: row.objections(model.device, model.dtype) for name, row in ATTENTION.items()
    }
    choice = running.to_dict()
    lines = {"running": f"{choice['backend']} with {choice['attention']} attention"}
    for name, reasons in objections.items():
        lines[f"can use {name}"] = f"no: {'; '.join(reasons)}" if reasons else "yes"
    return lines


def _add_options(parser: ArgumentParser) -> None:
    add_json_option(parser)
    add_model_options(parser)


def _run(parsed: Namespace) -> int:
    editor = load_editor(parsed)
    lines = about(editor.model) | {"methods": list(METHOD_SETTINGS)}
    lines |= backends(editor.model, editor.running) | cache_summary()
    if parsed.json:
        print_json(lines)
        return 0
    width = max(map(len, lines))
    for name, value in lines.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:{width}}  {text}")
    return 0


INFO = Command(
    name="info",
    summary="what this installation has",
    description="Versions, devices, threads and the model.",
    add_options=_add_options,
    run=_run,
)

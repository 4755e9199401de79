"""Run parts through torch.compile, each behind a gate (`gate.py`)."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from ..diffusion.model import Model
from ..diffusion.parts import Part, PartFunction
from ..diffusion.unet import Operators, UNet
from ..system.incoming import first_line
from ..system.packages import version_of
from .attention import Attention
from .backend import Backend, Gates, captured
from .gate import Gate
from .verdicts import Verdicts

__all__ = ["COMPILED"]

_log = logging.getLogger("dragnoise")


def _build_unet(model: Model, attention: Attention) -> tuple[UNet, Gates]:
    """Return the network with every part compiled when it is first used, and the gates.

    The compiler's own CUDA graphs stay off (pytorch#126938): passes and iterations are captured
    here.
    """
    cuda = model.device.type == "cuda"
    operators = Operators(
        memory_format=torch.channels_last if cuda else torch.contiguous_format,
        attention=attention.attend,
    )
    gates: Gates = {}
    identity = _identity(model.unet.network, model.device)
    verdicts = Verdicts(_verdict_folder())
    told: set[str] = set()
    missing = "" if cuda else _missing_compiler()
    if missing:
        _log.warning("nothing is compiled: %s; all runs eagerly", missing)

    def compile_part(part: Part, run: PartFunction) -> PartFunction:
        if missing:
            gates[part.name] = Gate(part.name, run, run, identity, verdicts, {"all": missing})
            return run
        mode = "max-autotune-no-cudagraphs" if cuda else None
        compiled = torch.compile(run, dynamic=False, mode=mode)
        gate = Gate(part.name, run, compiled, identity, verdicts, told=told)
        gates[part.name] = gate
        return captured(part, gate, model.device)

    return UNet(model.unet.network, operators, compile_part), gates


def _missing_compiler() -> str:
    """Return why there is no C++ compiler, which compiling for a CPU needs; empty if there is."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as missing:
        return first_line(missing)
    return ""


def _verdict_folder() -> Path:
    """Return a folder in the compiler's cache: emptying the one empties the other."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / "dragnoise-gate"


def _identity(network: Any, device: torch.device) -> dict[str, str]:
    """Say what a verdict holds for, beside the part and the kind of input.

    The network (its configuration and a digest of its output layer), the device and versions.
    """
    weight = network.conv_out.weight.detach().float().cpu().numpy().tobytes()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {package: version_of(package) for package in ("torch", "triton", "dragnoise")}
    config = json.dumps(dict(network.config), sort_keys=True, default=str)
    return {
        "config": config,
        "weights": hashlib.sha256(weight).hexdigest(),
        "device": name,
    } | versions


COMPILED = Backend(
    "compiled", "torch.compile behind a gradient gate", lambda model: [], build_unet=_build_unet
)

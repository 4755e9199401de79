"""Run TensorRT plans: which plan is read for a part, and why there may be none to run."""

from pathlib import Path

import torch

from ...diffusion.model import Model
from ...exported import Extent, PlanId, read_plan, signature
from ..artefacts import Artefacts
from ..backend import Backend
from ..exported_parts import ExportedParts
from . import Cuda, Engine, library, objections_to_tensorrt

__all__ = ["TENSORRT"]


def _objections(model: Model) -> list[str]:
    """List why TensorRT cannot serve a model; empty if it can."""
    objections = objections_to_tensorrt()
    if model.device.type != "cuda":
        objections.append(f"TensorRT runs on CUDA, the model is on {model.device}")
    elif not objections:
        objections += library().objections_to(torch.cuda.get_device_capability(model.device))
    return objections


def _open_parts(model: Model, artefacts: Artefacts) -> ExportedParts[PlanId]:
    """Return the parts that lie in `artefacts` as plans."""
    trt = library()
    device = Cuda(model.device)

    def find(part: str, extent: Extent) -> tuple[Path, PlanId]:
        return artefacts.plan(model, part, extent, trt)

    def load(path: Path, wanted: PlanId, part: str, extent: Extent) -> Engine:
        plan = read_plan(path, wanted)
        names = signature(model, part, extent)
        compiled = path.with_name(f"{path.stem}.{device.name.replace(' ', '-').lower()}.compiled")
        return Engine(trt, plan, names, device, path.name, compiled)

    return ExportedParts(model, find, load)


TENSORRT = Backend(
    "tensorrt", "TensorRT plans, in either flavour", _objections, open_parts=_open_parts
)

"""TensorRT plans as a backend: which plan is read for a part, and why there may be none to run."""

from functools import partial

from ..exported import Extent, read_plan, signature
from ..model import Model
from .artefacts import Artefacts
from .served import Served
from .tensorrt import Cuda, Device, Engine, Library, library, objections_to

__all__ = ["objections", "served"]


def objections(model: Model) -> list[str]:
    """Why TensorRT cannot serve; empty if it can."""
    found = objections_to()
    if model.device.type != "cuda":
        found.append(f"TensorRT runs on CUDA, the model is on {model.device}")
    return found


def served(model: Model, artefacts: Artefacts) -> Served:
    """The parts that lie in `artefacts` as plans."""
    return Served(model, partial(_open, model, artefacts, library(), Cuda(model.device)))


def _open(model: Model, artefacts: Artefacts, trt: Library, device: Device, part: str, extent: Extent) -> Engine:
    path, wanted = artefacts.plan(model, part, extent, trt)
    compiled = path.with_name(f"{path.stem}.{device.name.replace(' ', '-').lower()}.compiled")
    return Engine(trt, read_plan(path, wanted), signature(model, part, extent), device, path.name, compiled)

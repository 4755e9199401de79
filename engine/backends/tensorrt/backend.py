"""TensorRT plans as a backend: which plan is read for a part, and why there may be none to run."""

from pathlib import Path

from ...diffusion.model import Model
from ...exported import Extent, PlanId, read_plan, signature
from ..artefacts import Artefacts
from ..exported_parts import ExportedParts
from . import Cuda, Engine, library, objections_to

__all__ = ["objections", "served"]


def objections(model: Model) -> list[str]:
    """Why TensorRT cannot serve; empty if it can."""
    found = objections_to()
    if model.device.type != "cuda":
        found.append(f"TensorRT runs on CUDA, the model is on {model.device}")
    return found


def served(model: Model, artefacts: Artefacts) -> ExportedParts[PlanId]:
    """The parts that lie in `artefacts` as plans."""
    trt, device = library(), Cuda(model.device)

    def find(part: str, extent: Extent) -> tuple[Path, PlanId]:
        return artefacts.plan(model, part, extent, trt)

    def load(path: Path, wanted: PlanId, part: str, extent: Extent) -> Engine:
        compiled = path.with_name(f"{path.stem}.{device.name.replace(' ', '-').lower()}.compiled")
        return Engine(
            trt,
            read_plan(path, wanted),
            signature(model, part, extent),
            device,
            path.name,
            compiled,
        )

    return ExportedParts(model, find, load)

"""A model on a diffusers pipeline's own weights."""

from typing import TYPE_CHECKING, Any

from ...config import DragConfig
from ...errors import ModelError
from ...system.device import choose_dtype
from ..model import Model
from ..weights import frozen_view
from .folder import COMPONENTS, NETWORKS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
from .build import build_model

__all__ = ["of_pipeline"]


def of_pipeline(pipeline: "DiffusionPipeline") -> Model:
    """A model on a pipeline's own weights, in their memory, device and precision; the pipeline itself is not changed.

    Raises ModelError if it is not a Stable Diffusion pipeline, or if its weights are moved about as it runs; DeviceError for float16 on a CPU.
    """
    missing = [name for name in COMPONENTS if getattr(pipeline, name, None) is None]
    if missing:
        raise ModelError(
            f"{type(pipeline).__name__} has no {', '.join(missing)}; give a Stable Diffusion 1.x or 2.x text-to-image pipeline"
        )
    parts: dict[str, Any] = {name: getattr(pipeline, name) for name in COMPONENTS}
    for name in NETWORKS:
        if any(
            hasattr(module, mark)
            for module in parts[name].modules()
            for mark in ("_hf_hook", "_diffusers_hook")
        ):
            raise ModelError(
                f"the pipeline's {name} is moved between devices as it runs; give a pipeline without offloading"
            )
        parts[name] = frozen_view(parts[name])
    devices = {weight.device for name in NETWORKS for weight in parts[name].parameters()}
    if len(devices) > 1:
        raise ModelError(
            f"the pipeline lies on {', '.join(sorted(map(str, devices)))}; put it on one device"
        )
    where = devices.pop()
    choose_dtype(parts["unet"].dtype, where)
    return build_model(type(pipeline).__name__, parts, where, None, DragConfig())

"""Build a model on a diffusers pipeline's own weights."""

from typing import TYPE_CHECKING, Any

from ...config import DragConfig
from ...errors import ModelError
from ...system.device import choose_dtype
from ...system.numerics import own_numerics
from ..model import Model
from ..weights import frozen_view
from .build import build_model
from .folder import COMPONENTS, NETWORKS
from .network import check_built, check_together
from .scheduler import noise_of
from .tokenizer import belonging

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["of_pipeline"]

_HOOKS = ("_hf_hook", "_diffusers_hook")
"""Attributes that offloading leaves on modules."""


@own_numerics()
def of_pipeline(pipeline: "DiffusionPipeline", defaults: DragConfig | None = None) -> Model:
    """Return a model on a pipeline's weights, in their memory, device and precision.

    The pipeline itself is not changed.

    Args:
        pipeline: Of Stable Diffusion.
        defaults: The drag settings that the model brings; None: ours.

    Raises:
        ModelError: If it is not a Stable Diffusion pipeline, or if its weights are moved about as
            it runs.
        DeviceError: For float16 on a CPU.
    """
    kind = type(pipeline).__name__
    missing = [name for name in COMPONENTS if getattr(pipeline, name, None) is None]
    if missing:
        raise ModelError(
            f"{kind} has no {', '.join(missing)}; "
            "give a Stable Diffusion 1.x or 2.x text-to-image pipeline"
        )
    components: dict[str, Any] = {name: getattr(pipeline, name) for name in COMPONENTS}
    for name in NETWORKS:
        modules = components[name].modules()
        if any(hasattr(module, hook) for module in modules for hook in _HOOKS):
            raise ModelError(
                f"the pipeline's {name} is moved between devices as it runs; "
                "give a pipeline without offloading"
            )
        components[name] = frozen_view(components[name])
    devices = {weight.device for name in NETWORKS for weight in components[name].parameters()}
    if len(devices) > 1:
        places = ", ".join(sorted(map(str, devices)))
        raise ModelError(f"the pipeline lies on {places}; put it on one device")
    device = devices.pop()
    choose_dtype(components["unet"].dtype, device)
    check_built(components, kind)
    check_together(kind, components)
    components["tokenizer"] = belonging(components["tokenizer"], components["text_encoder"], kind)
    components["scheduler"] = noise_of(components["scheduler"], kind)
    return build_model(kind, components, device, None, defaults or DragConfig())

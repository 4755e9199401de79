"""Count the floating-point operations of a drag, on a device that computes nothing.

The stages themselves run, on a U-Net of the same shape whose tensors have no memory (the meta
device), one step or iteration each, under PyTorch's own counter. Text encoder and VAE, which all
methods have in common, are left out. `dragnoise.bench.work` counts a whole edit in detail.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from ..diffusion.model import Model
from ..diffusion.place import Place
from ..diffusion.unet import UNet
from ..drag.loop import DragLoop
from ..drag.method import AnyMethod
from ..drag.scene import Scene
from ..stages import condition, invert, propagate, show

__all__ = ["CountedWork", "counted_work"]

_META = torch.device("meta")


@dataclass(frozen=True)
class CountedWork:
    """Floating-point operations of a drag, a product and a sum each one.

    Attributes:
        invert: Of an inversion's step.
        iteration: Of an update.
        show: Of a denoising step of the unedited picture; 0 where the method reads none.
        propagate: Of a denoising step of the edited one.
    """

    invert: int
    iteration: int
    show: int
    propagate: int

    def whole(self, iterations: int, active_steps: int) -> int:
        """Return the operations of a first edit of that many updates and steps."""
        steps = self.invert + self.show + self.propagate
        return steps * active_steps + self.iteration * iterations


def counted_work(
    model: Model,
    method: AnyMethod,
    settings: Any,
    cells: tuple[int, int],
    resolution: tuple[int, int],
    mask: bool,
) -> CountedWork:
    """Count what a method does on a model's U-Net.

    Args:
        model: Only its U-Net's configuration and its schedule are read.
        method: A row on a diffusion model.
        settings: The method's own.
        cells: (rows, columns) of the latent.
        resolution: (rows, columns) of the supervision map.
        mask: Whether something must stay.
    """
    with _META:
        network = UNet2DConditionModel.from_config(dict(model.unet.config))
    bare = method.prepare(
        dataclasses.replace(model, unet=UNet(network.eval().requires_grad_(False)), device=_META)
    )
    texts = 1 if settings.guidance == 1 else 2
    text = torch.zeros(
        texts, 77, network.config["cross_attention_dim"], device=_META, dtype=torch.float32
    )
    conditioning = condition(bare, text, settings.steps, settings.guidance)
    channels = network.config["in_channels"]
    latent = torch.zeros(1, channels, *cells, device=_META, dtype=torch.float32)
    place = Place.at(bare, latent, conditioning, 1)
    handles = torch.zeros(1, 2, dtype=torch.int64, device=_META)
    scene = Scene(
        place=place,
        handles=handles,
        targets=handles,
        resolution=resolution,
        keep=torch.zeros(1, 1, *cells, device=_META, dtype=torch.float32) if mask else None,
        settings=settings.replace(iterations=2, strength=1 / settings.steps),
    )
    start = method.start(place)
    if method.aim is not None:
        scene, start = method.aim(scene, start, (latent, latent))
    loop = DragLoop(method, scene, start, torch.float32).begin(scene, start)
    loop.step()
    first_layer = None if method.mutual is None else method.mutual(settings).first_layer
    if first_layer is not None:
        scene = dataclasses.replace(scene, shown=show(place, 0, first_layer))
    return CountedWork(
        invert=_flops(lambda: invert(bare, latent, conditioning, 1)),
        iteration=_flops(loop.step),
        show=0 if first_layer is None else _flops(lambda: show(place, 0, first_layer)),
        propagate=_flops(lambda: propagate(method, scene, start.constants, start.variable)),
    )


def _flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())

"""Pictures of one drag with ever other targets, each made of the source and in one go.

    targets -> the method's start there -> denoise -> decode -> pixels

Nothing is optimised and nothing of a frame goes into the next, so the way by which the pointer came
changes no bit. On CUDA a frame is one graph that is replayed: handles and targets lie in its
buffers, and nothing in it waits for the host.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion.vae import Autoencoder
from ..drag.method import AnyMethod
from ..drag.scene import Scene
from ..errors import ConfigError
from ..inputs.points import Points
from ..stages import decode, propagate
from ..system.cuda_graphs import Captured, Graph, NullGraph, graph_on
from .diffusion import DIFFUSION
from .pipeline import OnStep, Prepared
from .runtime import Runtime

__all__ = ["FrameMaker", "check_live"]


def check_live(method: AnyMethod, settings: Any) -> None:
    """Check that frames can be made by a method with these settings. Raises ConfigError."""
    if method.aim is None:
        raise ConfigError(
            f"the method {method.name} cannot follow a pointer, since it begins every drag where "
            "the handles are; take preset='live'"
        )
    if method.pipeline is not DIFFUSION:
        raise ConfigError(
            f"the method {method.name} makes no frames with the model; take preset='live', whose "
            "first answer to every move is one without"
        )
    if settings.iterations:
        raise ConfigError(
            f"a frame has no time for updates, got iterations={settings.iterations}; take "
            "iterations=0, or preset='live'"
        )


class FrameMaker:
    """A maker of frames of one source, whose mask and grip stay while the targets move.

    Args:
        runtime: The model, and a small decoder where there is one.
        method: One that can follow a pointer (`check_live`).
        prepared: The source.
        scene: The drag; its handles and targets are left aside.
    """

    def __init__(
        self,
        runtime: Runtime,
        method: AnyMethod,
        prepared: Prepared[Any],
        scene: Scene[Any, Any],
    ) -> None:
        small = runtime.preview_vae
        self._prepared = prepared
        self._pixels = _Pixels(
            method, prepared, scene, None if small is None else Autoencoder(small)
        )
        self._graph = Captured(self._pixels, _capture(runtime))

    def __call__(self, points: Points, on_step: OnStep | None = None) -> Tensor:
        """Return a frame, float32 [1, 3, H, W], nominally in -1..1.

        Args:
            points: Handles and targets in image pixels.
            on_step: Called after every denoising step, where no graph is replayed.
        """
        self._pixels.on_step = on_step
        device = self._prepared.device
        frame = self._prepared.frame
        drag = (*frame.points(points), frame.ways(points))
        pixels: Tensor = self._graph(*(cells.to(device) for cells in drag))
        return pixels


@dataclass(eq=False)
class _Pixels:
    """What is captured.

    It does not know its graph, which would not be freed with the last frame then, but when garbage
    is collected.
    """

    method: AnyMethod
    prepared: Prepared[Any]
    scene: Scene[Any, Any]
    decoder: Autoencoder | None
    on_step: OnStep | None = None

    @torch.no_grad()
    def __call__(self, handles: Tensor, targets: Tensor, ways: Tensor) -> Tensor:
        method = self.method
        assert method.aim is not None
        scene = replace(self.scene, handles=handles, targets=targets, ways=ways)
        scene, start = method.aim(scene, self.prepared.start, self.prepared.inversion)
        latent = propagate(method, scene, start.constants, start.variable, on_step=self.on_step)
        return decode(scene.place.model, latent, self.decoder)


def _capture(runtime: Runtime) -> Callable[[Callable[[], None]], Graph]:
    """Return the kind of graph that a frame can be.

    Exported parts are graphs of their own, made anew when their files or their room change.
    """
    return NullGraph if runtime.running.exported else graph_on(runtime.model.device)

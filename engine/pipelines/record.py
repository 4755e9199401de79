"""Every intermediate of an edit: what all pipelines keep, and what a diffusion model adds."""

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from ..drag.loop import Optimum
from ..drag.scene import Scene

__all__ = ["Intermediates", "Record"]


@dataclass(frozen=True, eq=False)
class Intermediates:
    """The end of a drag and its scene, which every pipeline's record has.

    A copy (`copy.deepcopy`) shares the place of the scene with the original. Pickled it is without
    one (`scene.place` is None): a model is not sent to another process.

    Attributes:
        scene: What the drag was given, to go on from here.
        optimum: Where the drag ended, to go on from here.
    """

    scene: Scene[Any, Any]
    optimum: Optimum

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.scene.place)] = self.scene.place
        return replace(
            self, **{name: copy.deepcopy(value, memo) for name, value in vars(self).items()}
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "scene": replace(self.scene, place=None)}

    @property
    def variable(self) -> Tensor:
        """What was optimised, after the drag, float32: a bottleneck, a latent, style vectors."""
        return self.optimum.variable

    @property
    def variable_start(self) -> Tensor:
        """What was optimised, before the drag, float32."""
        return self.optimum.start

    @property
    def handles(self) -> Tensor:
        """[iterations, N, 2], (row, column) at the supervision resolution, int64 or float32."""
        return self.optimum.handles

    @property
    def targets(self) -> Tensor:
        """int64 [N, 2], (row, column) at the supervision resolution."""
        return self.scene.targets

    @property
    def keep(self) -> Tensor | None:
        """1 - mask in the size of what the mask holds, float32 [1, 1, h, w], or None."""
        return self.scene.keep


@dataclass(frozen=True, eq=False, kw_only=True)
class Record(Intermediates):
    """Every intermediate of an edit, kept only when asked for; tensors on the model's device.

    Attributes:
        text: The text embedding [1, L, D], with guidance [2, L, D].
        trajectory: The clean latent to the inverted one, float32 [1, 4, h, w] each.
        final_latent: The clean latent after the drag, float32 [1, 4, h, w].
        pixels: As decoded, float32 [1, 3, H, W], nominally in -1..1.
    """

    text: Tensor
    trajectory: tuple[Tensor, ...]
    final_latent: Tensor
    pixels: Tensor

    @property
    def inverted(self) -> Tensor:
        """The noisy latent at which the drag happened, float32 [1, 4, h, w]."""
        return self.trajectory[-1]

    @property
    def bottleneck(self) -> Tensor:
        """DragNoise's `variable`."""
        return self.variable

    @property
    def bottleneck_start(self) -> Tensor:
        """DragNoise's `variable_start`."""
        return self.variable_start

    @property
    def reference_features(self) -> Tensor | None:
        """Features of the first forward pass [1, C, h, w]; None without one."""
        reference = self.optimum.reference
        return None if reference is None else reference.features

    @property
    def reference_noise(self) -> Tensor | None:
        """Predicted noise of the first forward pass [1, 4, h, w]; None without one."""
        reference = self.optimum.reference
        return None if reference is None else reference.noise

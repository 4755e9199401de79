"""Edit a drag with DragNoise, and denoise it with other bottlenecks: the controls and the oracle.

    reconstruction   the same inversion, denoised without a drag
    constant         the bottleneck of the drag's step, held through all steps: no drag
    random           that, moved by noise as large as the drag's change
    another          that, moved by the change of another drag
    goal             the bottleneck of the picture that the drag should lead to, in the source

Controls must move nothing; what they move, the method did not.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dragnoise.engine import DragConfig, Editor, EditResult, Image, Mask, Points, stages
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import Conditioning, Down
from dragnoise.engine.drag.loop import Optimum
from dragnoise.engine.drag.scene import Scene
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.methods import METHODS

from ..fidelity.pixels import Pixels
from ..world.drags import Drag

__all__ = ["Trial", "conditioned", "decoded", "edit", "encoded", "goal_bottleneck"]


def edit(editor: Editor, drag: Drag, method: str, config: Any, record: bool = False) -> EditResult:
    """Edit a drag by a method, as a person does who knows nothing but its input."""
    return editor.edit(
        drag.before,
        Points(drag.handles, drag.targets),
        mask=None if drag.mask is None else Mask(drag.mask),
        prompt=drag.prompt,
        method=method,
        config=config,
        record=record,
    )


@dataclass(frozen=True, eq=False)
class Trial:
    """A drag that is edited with DragNoise when it is first needed.

    Attributes:
        editor: That edits.
        drag: The drag.
        config: Settings.
    """

    editor: Editor
    drag: Drag
    config: DragConfig

    @cached_property
    def result(self) -> EditResult:
        """The edit, with its record."""
        return edit(self.editor, self.drag, "dragnoise", self.config, record=True)

    @property
    def picture(self) -> Pixels:
        """The edited picture."""
        return np.asarray(self.result.image.pixels)

    @property
    def optimum(self) -> Optimum:
        """Where the drag ended."""
        assert self.result.record is not None
        return self.result.record.optimum

    @property
    def change(self) -> Tensor:
        """What the drag changed the bottleneck by."""
        change: Tensor = self.optimum.variable - self.optimum.start
        return change

    @property
    def _scene(self) -> Scene[object, DragConfig]:
        assert self.result.record is not None
        scene: Scene[object, DragConfig] = self.result.record.scene
        return scene

    @cached_property
    def rebuilt(self) -> Pixels:
        """The reconstruction: no bottleneck is held."""
        free = self.config.replace(end_step=self.config.steps)
        return self._denoised(dataclasses.replace(self._scene, settings=free), self.optimum.start)

    def propagated(self, bottleneck: Tensor) -> Pixels:
        """Denoise with another bottleneck and return the picture."""
        return self._denoised(self._scene, bottleneck)

    def moved_by(self, change: Tensor) -> Pixels:
        """Denoise with the source's bottleneck moved by a change and return the picture."""
        return self.propagated(self.optimum.start + change)

    def noise_like_the_change(self, seed: int = 0) -> Tensor:
        """Return noise as large as the drag's change."""
        change = self.change
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(change.shape, generator=generator, dtype=torch.float32).to(change)
        scaled: Tensor = noise * change.norm() / noise.norm().clamp(min=1e-12)
        return scaled

    def _denoised(self, scene: Scene[object, DragConfig], bottleneck: Tensor) -> Pixels:
        constants = self.optimum.constants
        latent = stages.propagate(METHODS["dragnoise"], scene, constants, bottleneck)  # type: ignore[arg-type]
        return decoded(self.editor.model, latent)


def decoded(model: Model, latent: Tensor) -> Pixels:
    """Decode a clean latent [1, 4, h, w] to a picture."""
    values = (stages.decode(model, latent)[0] + 1) * 127.5
    pixels: Pixels = values.clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def encoded(model: Model, picture: Pixels) -> Tensor:
    """Encode a picture to a clean latent, float32 [1, 4, h, w]."""
    source = Image(picture)
    latent: Tensor = stages.encode(model, Frame.of(source, model.factor).pixels(source))
    return latent


def conditioned(model: Model, prompt: str, steps: int) -> Conditioning:
    """Return what the network is told of a prompt and a schedule."""
    conditioning: Conditioning = stages.condition(model, stages.embed(model, prompt), steps)
    return conditioning


@torch.no_grad()
def goal_bottleneck(editor: Editor, drag: Drag, config: DragConfig) -> tuple[float, Tensor]:
    """Measure what the goal's own bottleneck does when it is put into the source.

    Returns:
        The leverage: how far (0 to 1) it moves the predicted picture towards the goal's at the
        drag's step; and that bottleneck.
    """
    model = editor.model
    schedule = model.schedule(config.steps)
    conditioning = conditioned(model, drag.prompt, config.steps)
    step = conditioning.at(schedule.active(config.active_steps)[0][1])
    timestep = schedule.active(config.active_steps)[0][1]

    def inverted(picture: Pixels) -> tuple[Tensor, Down, Tensor]:
        latent = encoded(model, picture)
        noisy = stages.invert(model, latent, conditioning, config.active_steps)[-1]
        down = model.unet.down(noisy, step)
        return noisy, down, model.unet.middle(down)

    def predicted(latent: Tensor, down: Down, bottleneck: Tensor) -> Tensor:
        output = model.unet.up(down, bottleneck).output
        assert output is not None
        return schedule.clean(schedule.noise(output, latent, timestep), latent, timestep)

    source, source_down, source_bottleneck = inverted(drag.before)
    goal, goal_down, goal_bottleneck = inverted(drag.after)
    unmoved = predicted(source, source_down, source_bottleneck)
    wanted = predicted(goal, goal_down, goal_bottleneck) - unmoved
    moved = predicted(source, source_down, goal_bottleneck) - unmoved
    leverage = float((wanted * moved).sum() / wanted.square().sum())
    return leverage, goal_bottleneck.float()

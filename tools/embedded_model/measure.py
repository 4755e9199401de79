"""Edit drags whose result is known, and judge each edit by what it should have become."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dragnoise.bench.world.analysis import find
from dragnoise.bench.world.drags import Drag, Selection, grown
from dragnoise.bench.world.painting import Pixels
from dragnoise.engine import DragConfig, Editor, EditResult, Image, Mask, Points, stages
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import Conditioning, Down
from dragnoise.engine.drag.loop import Optimum
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.methods import METHODS


@dataclass(frozen=True)
class Score:
    """An edit's scores.

    Attributes:
        completion: The share of the way: 0 is the source, 1 the goal.
        distance_px: From the landmark to the target.
        inside_db: PSNR against the goal, inside the mask.
        outside_db: PSNR against the reconstruction, outside of the mask.
        sharpness: The picture's gradients beside the goal's, inside the mask; 1 is as sharp.
        gain_db: `inside_db` less that of the unedited picture.
    """

    completion: float
    distance_px: float
    inside_db: float
    outside_db: float
    sharpness: float
    gain_db: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A drag that was edited.

    Attributes:
        drag: The drag.
        result: The edit, with its record.
        rebuilt: The reconstruction: the same inversion, denoised without a drag.
    """

    drag: Drag
    result: EditResult
    rebuilt: Pixels

    @property
    def picture(self) -> Pixels:
        return np.asarray(self.result.image.pixels)

    @property
    def optimum(self) -> Optimum:
        assert self.result.record is not None
        return self.result.record.optimum

    def score(self, picture: Pixels | None = None) -> Score:
        """Score the edit, or another picture made from the same drag."""
        drag = self.drag
        picture = self.picture if picture is None else picture
        found = find(drag, picture)
        inside = psnr(picture, drag.after, drag.area)
        outside = psnr(picture, self.rebuilt, ~grown(drag.area, 5))
        gain = inside - psnr(drag.before, drag.after, drag.area)
        sharp = gradients(picture, drag.area) / gradients(drag.after, drag.area)
        return Score(found.completion, found.distance_px, inside, outside, sharp, gain)

    def propagated(self, bottleneck: Tensor) -> Pixels:
        """Denoise with another bottleneck and return the picture."""
        assert self.result.record is not None
        scene = self.result.record.scene
        constants = self.optimum.constants
        latent = stages.propagate(METHODS["dragnoise"], scene, constants, bottleneck)
        return decoded(scene.place.model, latent)


def decoded(model: Model, latent: Tensor) -> Pixels:
    """Decode a clean latent [1, 4, h, w] to a picture."""
    values = (stages.decode(model, latent)[0] + 1) * 127.5
    pixels: Pixels = values.clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def edited(editor: Editor, drag: Drag, config: DragConfig) -> Trial:
    """Edit a drag, and rebuild its picture from the same inversion without the drag."""
    result = editor.edit(
        drag.before,
        Points(drag.handles, drag.targets),
        mask=None if drag.mask is None else Mask(drag.mask),
        prompt=drag.prompt,
        config=config,
        record=True,
    )
    assert result.record is not None
    optimum = result.record.optimum
    still = config.replace(end_step=config.steps)
    free = dataclasses.replace(result.record.scene, settings=still)
    rebuilt = stages.propagate(METHODS["dragnoise"], free, optimum.constants, optimum.start)
    return Trial(drag, result, decoded(editor.model, rebuilt))


def psnr(a: Pixels, b: Pixels, where: Selection | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, of all pixels or of those in a mask."""
    error = (a.astype(np.float32) - b) ** 2
    if where is not None:
        error = error[where]
    return 10 * math.log10(255**2 / max(1e-6, float(error.mean())))


def gradients(picture: Pixels, where: Selection) -> float:
    """Return the mean square of a picture's gradients in a mask."""
    down, across = np.gradient(picture.astype(np.float32), axis=(0, 1))
    return float((down**2 + across**2).sum(-1)[where].mean())


@torch.no_grad()
def oracle(editor: Editor, drag: Drag, config: DragConfig) -> tuple[float, Tensor]:
    """Measure what the goal's own bottleneck does when it is put into the source.

    Returns:
        The leverage: how far (0 to 1) it moves the predicted picture towards the goal's at the
        drag's step; and that bottleneck.
    """
    model = editor.model
    schedule = model.schedule(config.steps)
    conditioning = stages.condition(model, stages.embed(model, drag.prompt), config.steps)
    source = _inverted(model, drag.before, conditioning, config)
    goal = _inverted(model, drag.after, conditioning, config)
    _, timestep = schedule.active(config.active_steps)[0]
    source_down = model.unet.down(source, conditioning.at(timestep))
    goal_down = model.unet.down(goal, conditioning.at(timestep))
    source_bottleneck = model.unet.middle(source_down)
    goal_bottleneck = model.unet.middle(goal_down)

    def predicted(latent: Tensor, down: Down, bottleneck: Tensor) -> Tensor:
        output = model.unet.up(down, bottleneck).output
        assert output is not None
        return schedule.clean(schedule.noise(output, latent, timestep), latent, timestep)

    unmoved = predicted(source, source_down, source_bottleneck)
    wanted = predicted(goal, goal_down, goal_bottleneck) - unmoved
    moved = predicted(source, source_down, goal_bottleneck) - unmoved
    leverage = float((wanted * moved).sum() / wanted.square().sum())
    return leverage, goal_bottleneck.float()


def _inverted(
    model: Model, picture: Pixels, conditioning: Conditioning, config: DragConfig
) -> Tensor:
    source = Image(picture)
    latent = stages.encode(model, Frame.of(source, model.factor).pixels(source))
    return stages.invert(model, latent, conditioning, config.active_steps)[-1]

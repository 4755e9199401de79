"""How well a model drags: the engine edits drags whose result is known, and each edit is judged by what it should have become."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dragnoise.engine import DragConfig, Editor, EditResult, Image, Mask, Points, stages
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import Conditioning
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.methods import METHODS
from dragnoise.engine.stages import Optimum

from .drags import Drag, completion, grown, psnr
from .world import Pixels


@dataclass(frozen=True)
class Score:
    """One edit. completion: 1 is the goal, 0 the source; distance_px: the landmark's, to the target; inside_db: against the goal, inside the mask;
    outside_db: against the reconstruction, outside of it; gain_db: inside_db less that of the unedited picture."""

    completion: float
    distance_px: float
    inside_db: float
    outside_db: float
    gain_db: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A drag, what the engine made of it, and the reconstruction: the same inversion without a drag."""

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
        """Of the edit, or of another picture made from the same drag."""
        drag, seen = self.drag, self.picture if picture is None else picture
        share, distance = completion(drag, seen)
        inside, outside = (
            psnr(seen, drag.after, drag.mask),
            psnr(seen, self.rebuilt, ~grown(drag.mask, 5)),
        )
        return Score(
            share, distance, inside, outside, inside - psnr(drag.before, drag.after, drag.mask)
        )

    def propagated(self, bottleneck: Tensor) -> Pixels:
        """The picture that another bottleneck leads to."""
        assert self.result.record is not None
        scene = self.result.record.scene
        return decoded(
            scene.model,
            stages.propagate(METHODS["dragnoise"], scene, self.optimum.constants, bottleneck),
        )


def decoded(model: Model, latent: Tensor) -> Pixels:
    """The picture of a clean latent, as bytes."""
    pixels: Pixels = (
        ((stages.decode(model, latent)[0] + 1) * 127.5)
        .clamp(0, 255)
        .round()
        .byte()
        .permute(1, 2, 0)
        .cpu()
        .numpy()
    )
    return pixels


def edited(editor: Editor, drag: Drag, config: DragConfig) -> Trial:
    """Run the engine on a drag, and once more from where it was inverted without an optimum."""
    result = editor.edit(
        drag.before,
        Points((drag.handle,), (drag.target,)),
        mask=Mask(drag.mask),
        prompt=drag.caption,
        config=config,
        record=True,
    )
    assert result.record is not None
    optimum = result.record.optimum
    free = dataclasses.replace(result.record.scene, config=config.replace(end_step=config.steps))
    rebuilt = stages.propagate(METHODS["dragnoise"], free, optimum.constants, optimum.start)
    return Trial(drag, result, decoded(editor.model, rebuilt))


@torch.no_grad()
def oracle(editor: Editor, drag: Drag, config: DragConfig) -> tuple[float, Tensor]:
    """Leverage: how far the goal's own bottleneck, put into the source at the drag's step, moves the predicted picture to the goal's (0 to 1);
    and that bottleneck."""
    model = editor.model
    schedule, unet = model.schedule(config.steps), model.unet
    told = stages.condition(model, stages.embed(model, drag.caption), config.steps)
    noisy = [_inverted(editor, picture, told, config) for picture in (drag.before, drag.after)]
    _, timestep = schedule.active(config.active_steps)[0]
    downs = [unet.down(latent, told.at(timestep)) for latent in noisy]
    here, there = (unet.middle(down) for down in downs)
    clean = []
    for latent, down, bottleneck in (
        (noisy[0], downs[0], here),
        (noisy[1], downs[1], there),
        (noisy[0], downs[0], there),
    ):
        output = unet.up(down, bottleneck).output
        assert output is not None
        clean.append(schedule.clean(schedule.noise(output, latent, timestep), latent, timestep))
    wanted, got = clean[1] - clean[0], clean[2] - clean[0]
    return float((wanted * got).sum() / wanted.square().sum()), there.float()


def _inverted(editor: Editor, picture: Pixels, told: Conditioning, config: DragConfig) -> Tensor:
    model = editor.model
    source = Image(picture)
    latent = stages.encode(model, Frame.of(source, model.factor).pixels(source))
    return stages.invert(model, latent, told, config.active_steps)[-1]

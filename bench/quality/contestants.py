"""List what edits drags in the table of quality: methods, rivals without a model, controls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from dragnoise.engine import PRESETS, DragConfig, Editor, Mask, Points
from dragnoise.engine.config import DiffusionSettings, DragGANConfig

from ..fidelity.pixels import Pixels
from ..world.drags import Drag, drag, grown
from . import warps
from .generated import GeneratedDrag
from .trial import Trial, conditioned, decoded, edit, encoded, goal_bottleneck

__all__ = [
    "BY_PRESET",
    "CONTESTANTS",
    "DRAGGAN",
    "ENGINE",
    "OF_GENERATED",
    "Attempt",
    "Contestant",
    "Studio",
]

DRAGGAN = "draggan"
"""The engine's method that edits none but a generator's pictures."""

_TERA = 1e12


@dataclass(frozen=True, eq=False)
class Attempt:
    """What a contestant made of a drag.

    Attributes:
        picture: uint8 [128, 128, 3].
        iterations: Updates of the drag; None where there are none.
        reached: Whether every handle was found at its target; None where nobody looked.
        tflop: Counted work of a first edit of as many updates and steps, by Stable Diffusion 1.5
            at 512 x 512, in units of 10^12; None where there is no model.
        seconds: Of the edit alone, where it says so itself; see `Contestant.timed`.
    """

    picture: Pixels
    iterations: int | None = None
    reached: bool | None = None
    tflop: float | None = None
    seconds: float | None = None


@dataclass(eq=False)
class Studio:
    """An editor, and what is at hand of the drags that it edits.

    Attributes:
        editor: With the model.
        steps: Steps of every method's whole schedule.
        settings: Changes of the methods' settings, by method.
    """

    editor: Editor
    steps: int
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _trials: dict[str, Trial] = field(default_factory=dict, init=False)

    def config(self, name: str) -> DiffusionSettings:
        """Return the settings of a method, with the changes, or of a preset, which has its own."""
        if name in BY_PRESET:
            preset = PRESETS[name]
            settings: DiffusionSettings = self.editor.defaults_of(preset.method)
            return settings.replace(**preset.changes, **self.settings.get(name, {}))
        own: DiffusionSettings = self.editor.defaults_of(name)
        fewer = {"steps": self.steps}
        if isinstance(own, DragConfig):
            fewer["end_step"] = min(own.end_step, self.steps)
        return own.replace(**fewer, **self.settings.get(name, {}))

    @property
    def draggan(self) -> DragGANConfig:
        """DragGAN's settings: the generator's own, with the changes."""
        own: DragGANConfig = self.editor.defaults_of(DRAGGAN)
        return own.replace(**self.settings.get(DRAGGAN, {}))

    def trial(self, drag: Drag) -> Trial:
        """Return a drag's edit with DragNoise; that of the last drag is at hand."""
        if drag.name not in self._trials:
            config = self.config("dragnoise")
            assert isinstance(config, DragConfig)
            self._trials = {drag.name: Trial(self.editor, drag, config)}
        return self._trials[drag.name]


@dataclass(frozen=True)
class Contestant:
    """An entry of the table.

    Attributes:
        summary: What it is.
        attempt: Makes a picture of a drag.
        usual: Whether it takes part unless others are named.
        timed: Whether the time that it takes is an edit's. Not where it stands on DragNoise's edit
            of the same drag, which is there already or is made first: that depends on the order.
    """

    summary: str
    attempt: Callable[[Studio, Drag], Attempt]
    usual: bool = True
    timed: bool = True


def _method(name: str) -> Callable[[Studio, Drag], Attempt]:
    def attempt(studio: Studio, drag: Drag) -> Attempt:
        config = studio.config(name)
        method = PRESETS[name].method if name in BY_PRESET else name
        trial = studio.trial(drag) if name == "dragnoise" else None
        result = trial.result if trial else edit(studio.editor, drag, method, config)
        iterations = len(result.history.losses)
        passes = max(iterations, min(config.iterations, 1))  # one that finds all in place is one
        work = tflop(method, drag.mask is not None, passes, config.active_steps)
        seconds = result.timings_ms["total"] / 1e3
        reached = result.reached if passes else None
        return Attempt(result.image.pixels, iterations, reached, work, seconds)

    return attempt


def _draggan(studio: Studio, drag: Drag) -> Attempt:
    """Drag a generator's own picture, whose style vectors are known."""
    assert isinstance(drag, GeneratedDrag)
    result = studio.editor.edit(
        drag.source,
        Points(drag.handles, drag.targets),
        mask=None if drag.mask is None else Mask(drag.mask),
        method="draggan",
        config=studio.draggan,
    )
    iterations = len(result.history.losses)
    seconds = result.timings_ms["total"] / 1e3
    return Attempt(result.image.pixels, iterations, result.reached, None, seconds)


@cache
def _trace(method: str, mask: bool) -> Any:
    from ..work.work import Case, trace

    return trace(Case(method=method, mask=mask))


def tflop(method: str, mask: bool, passes: int, active_steps: int) -> float:
    """Count a first edit of Stable Diffusion 1.5 at 512 x 512, of so many passes in its loop."""
    whole = _trace(method, mask).work(passes, active_steps=active_steps)
    return float(whole.total.flops / _TERA)


def _nothing(studio: Studio, drag: Drag) -> Attempt:
    return Attempt(drag.before)


def _truth(studio: Studio, drag: Drag) -> Attempt:
    model = studio.editor.model
    return Attempt(decoded(model, encoded(model, drag.after)))


def _reconstruction(studio: Studio, drag: Drag) -> Attempt:
    return Attempt(studio.trial(drag).rebuilt)


def _goal(studio: Studio, drag: Drag) -> Attempt:
    trial = studio.trial(drag)
    return Attempt(trial.propagated(goal_bottleneck(studio.editor, drag, trial.config)[1]))


def _constant(studio: Studio, drag: Drag) -> Attempt:
    trial = studio.trial(drag)
    return Attempt(trial.moved_by(torch.zeros_like(trial.change)))


def _random(studio: Studio, drag: Drag) -> Attempt:
    trial = studio.trial(drag)
    return Attempt(trial.moved_by(trial.noise_like_the_change()))


def _another(studio: Studio, one: Drag) -> Attempt:
    """Move the bottleneck by the change of the next drag of the kind."""
    trial = studio.trial(one)
    lot, number = one.name.split("-")[0], int(one.name.split("-")[-1])
    other = Trial(studio.editor, drag(lot, one.kind, number + 1), trial.config)
    return Attempt(trial.moved_by(other.change))


def _warp(warp: warps.Warp) -> Callable[[Studio, Drag], Attempt]:
    return lambda studio, drag: Attempt(warp(drag).picture)


def _bent(studio: Studio, drag: Drag) -> Attempt:
    return Attempt(warps.bent(drag))


@torch.no_grad()
def _inpainted(studio: Studio, drag: Drag) -> Attempt:
    """Move the thing, and let the model paint the hole from noise; the rest stays as it is."""
    config = studio.config("dragnoise")
    model = studio.editor.model
    warped = warps.moved_thing(drag)
    known = encoded(model, warped.picture)
    hole = torch.from_numpy(grown(warped.holes, 5)).float()[None, None].to(known)
    hole = torch.nn.functional.max_pool2d(hole, model.factor)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(known.shape, generator=generator, dtype=torch.float32).to(known)
    conditioning = conditioned(model, drag.prompt, config.steps)
    schedule = model.schedule(config.steps)
    latent = noise
    for index, timestep in schedule.active(config.active_steps):
        a = schedule.alphas[timestep].to(known)
        noisy = a.sqrt() * known + (1 - a).sqrt() * noise
        begins = index == config.steps - config.active_steps
        latent = noisy if begins else hole * latent + (1 - hole) * noisy
        output = model.unet(latent, conditioning.at(timestep))
        latent = schedule.denoise(schedule.noise(output, latent, timestep), latent, timestep)
    drawn = decoded(model, hole * latent + (1 - hole) * known)
    picture = warped.picture.copy()
    where = grown(warped.holes, 3)
    picture[where] = drawn[where]
    return Attempt(picture)


_METHOD_SUMMARIES = {
    "baseline": "DragNoise as it was published, its work written out",
    "dragnoise": "DragNoise: the bottleneck is optimised, then held",
    "dragdiffusion": "DragDiffusion: the latent is optimised",
    "freedrag": "FreeDrag: the latent, towards waypoints, without tracking",
    "gooddrag": "GoodDrag: the latent, dragging and denoising in turns",
    "fast": "Fast: the noisy latent moved by a field, the bottleneck mended",
}

ENGINE = tuple(_METHOD_SUMMARIES)
"""The engine's methods in the table."""

_PRESET_SUMMARIES = {
    "published": "DragNoise in all its 50 steps",
    "live": "Live: the noisy latent moved, no updates: one frame at the pointer",
}

_SLOW = ("baseline", "published")

BY_PRESET = ("fast", *_PRESET_SUMMARIES)
"""The engine's presets in the table, which keep their own number of steps."""


def _bound(summary: str, attempt: Callable[[Studio, Drag], Attempt]) -> Contestant:
    """Return a bound or a control that stands on DragNoise's edit of the drag."""
    return Contestant(summary, attempt, timed=False)


CONTESTANTS: Mapping[str, Contestant] = {
    "nothing": Contestant("no edit: the zero line", _nothing),
    "reconstruction": _bound("inverted and denoised without a drag", _reconstruction),
    "oracle": Contestant("the truth through the VAE: the best there can be", _truth),
    "goal": _bound("the truth's own bottleneck, held in the source", _goal),
    "constant": _bound("control: the bottleneck held, no change", _constant),
    "random": _bound("control: a random change as large as the drag's", _random),
    "another": _bound("control: the change of another drag", _another),
    "warp": Contestant("no model: the thing cut out perfectly and moved", _warp(warps.moved_thing)),
    "mask-warp": Contestant("no model: all under the mask moved", _warp(warps.moved_mask)),
    "elastic-warp": Contestant("no model: drawn along by a smooth field", _bent),
    "warp-inpaint": Contestant("the thing moved, the hole painted by the model", _inpainted),
} | {
    name: Contestant(summary, _method(name), name not in _SLOW)
    for name, summary in (_METHOD_SUMMARIES | _PRESET_SUMMARIES).items()
}
"""Who drags drawn pictures."""

OF_GENERATED: Mapping[str, Contestant] = {
    "nothing": CONTESTANTS["nothing"],
    "warp": Contestant(
        "no model: the thing cut out along the drawn scene and moved", _warp(warps.moved_thing)
    ),
    DRAGGAN: Contestant("DragGAN: the generator's first style vectors are optimised", _draggan),
}
"""Who drags a generator's pictures."""

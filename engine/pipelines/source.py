"""A picture, and what is computed of it before any point is known."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from .. import stages
from ..config import DragConfig
from ..diffusion.lora.adapter import AdapterUse
from ..diffusion.model import Model
from ..errors import InputWarning
from ..inputs.frame import Frame
from ..inputs.image import Image
from ..inputs.mask import Mask
from ..inputs.points import Points
from ..methods import Forward, Method, Place, Scene, Start
from ..run import Run, StageCache
from ..system.timers import Observer
from .generate import Generated
from .runtime import Runtime

__all__ = ["Prepared", "Source", "depends_on", "limit_of", "ready", "reference", "scene_of"]

_Key = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """A picture and what it shows. trajectories: from the clean latent to the noisy one, where known, by what they depend on.

    negative_prompt: what guidance draws away from. generated: where the picture comes from, if it was made here; then nothing is inverted.
    """

    image: Image
    prompt: str
    trajectories: dict[_Key, tuple[Tensor, ...]] = field(default_factory=dict)
    negative_prompt: str = ""
    generated: Generated | None = None

    @classmethod
    def of(cls, image: Any, prompt: str, negative_prompt: str) -> "Source":
        """From whatever `Image.of` takes, or a `Generated`, which has its own prompts: ConfigError for others."""
        if not isinstance(image, Generated):
            return cls(Image.of(image), prompt, negative_prompt=negative_prompt)
        image.check(
            prompt=prompt or image.prompt, negative_prompt=negative_prompt or image.negative_prompt
        )
        return cls(
            image.image, image.prompt, negative_prompt=image.negative_prompt, generated=image
        )

    def trajectory(self, model: Model, key: _Key, config: DragConfig) -> tuple[Tensor, ...] | None:
        """`config.active_steps` + 1 latents, where known. Raises ConfigError where a generated picture has another model, steps or guidance."""
        if self.generated is None:
            return self.trajectories.get(key)
        self.generated.check(model=model.name, steps=config.steps, guidance=config.guidance)
        return self.generated.trajectory[: config.active_steps + 1]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A source prepared for a method and settings. key: what the preparation depends on beside the source."""

    source: Source
    key: _Key
    method: Method
    frame: Frame
    text: Tensor
    trajectory: tuple[Tensor, ...]
    place: Place
    start: Start
    keeper: StageCache | None


def depends_on(method: Method, config: DragConfig, used: AdapterUse) -> _Key:
    """What an inversion, and all that follows it up to the first update, depends on beside the source."""
    return (
        method.name,
        config.steps,
        config.active_steps,
        config.parity,
        config.guidance,
        used.key,
    )


def ready(
    runtime: Runtime,
    source: Source,
    method: Method,
    config: DragConfig,
    used: AdapterUse,
    observers: tuple[Observer, ...],
    *,
    on_step: Callable[[int], None] | None = None,
) -> Prepared:
    """Encode, invert, and compute what all drags on the source share; whatever of it is kept already is only fetched."""
    keeper = runtime.keeper()
    plain, active = method.prepare(runtime.model), config.active_steps
    run, model = Run(observers, keeper), used.tag(plain)
    frame, key = (
        Frame.of(source.image, model.factor, config.parity),
        depends_on(method, config, used),
    )
    trajectory = source.trajectory(model, key, config)
    text = run(stages.embed, plain, source.prompt, config.negative(source.negative_prompt))
    latent = (
        run(stages.encode, plain, frame.pixels(source.image))
        if trajectory is None
        else trajectory[0]
    )
    conditioning = run(stages.condition, model, text, config.steps, config.guidance)
    if trajectory is None:
        trajectory = run(stages.invert, model, latent, conditioning, active, on_step=on_step)
    start = run(stages.start, method, model, trajectory[-1], conditioning, active)
    place = stages.place(model, trajectory[-1], conditioning, active)
    return Prepared(source, key, method, frame, text, trajectory, place, start, keeper)


def reference(
    prepared: Prepared, start: Start, noise: bool, observers: tuple[Observer, ...]
) -> Forward:
    """What a drag that began at `start` was compared with."""
    place = prepared.place
    active = len(prepared.trajectory) - 1
    run = Run(observers, prepared.keeper)
    return run(
        stages.reference,
        prepared.method,
        place.model,
        place.latent,
        place.conditioning,
        active,
        start,
        noise,
    )


def scene_of(
    prepared: Prepared, points: Points, limit: Mask | None, config: DragConfig, wants_noise: bool
) -> Scene:
    """A drag on it: points and mask in the image's pixels."""
    place, frame = prepared.place, prepared.frame
    device = place.model.device
    handles, targets = frame.points(points)
    keep = None
    if limit is not None and config.lam > 0:
        keep = 1 - frame.editable(limit, (place.latent.shape[2], place.latent.shape[3]))
        keep = keep.to(device) if bool(keep.any()) else None
    return Scene(
        **vars(place),
        handles=handles.to(device),
        targets=targets.to(device),
        resolution=frame.supervision,
        keep=keep,
        config=config,
        wants_noise=wants_noise,
    )


def limit_of(mask: Any, image: Image, config: DragConfig) -> Mask | None:
    """The mask that a drag obeys. None: no limit (in parity mode, as published, the whole picture is held in place)."""
    if mask is None:
        return (
            Mask(np.zeros((image.height, image.width), dtype=np.bool_)) if config.parity else None
        )
    limit = Mask.of(mask, image.width, image.height)
    if not limit.editable.any():
        warnings.warn(
            "the mask marks nothing as editable (white), so the whole picture is held in place; leave the mask out to set no limit",
            InputWarning,
            stacklevel=4,
        )
    return limit

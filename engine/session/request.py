"""A drag as it was asked for, checked once."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from ..config import DragSettings, checked_priority, function, seconds, shown
from ..drag.loop import Iteration
from ..drag.method import AnyMethod
from ..errors import ConfigError, InputWarning, MaskError, PointError, SessionError
from ..inputs.image import Image
from ..inputs.mask import Mask, MaskLike
from ..inputs.notices import listening
from ..inputs.points import Points, PointsLike
from ..inputs.preset import preset_of
from ..methods import METHODS, method_row
from ..pipelines.pipeline import OnStep
from ..system.worker import Job
from .result import Progress, silent

__all__ = ["Base", "DragOptions", "DragRequest", "row_of", "settings_of", "usually"]

_HISTORY = 2**24
"""Most places of handles that a drag keeps, 16 bytes each."""

Base = Literal["source", "result", "inverted", "last"]
"""The beginning of a drag: see session.py."""


class DragOptions(TypedDict, total=False):
    """The keywords that a drag takes; `Session.drag` explains them."""

    mask: "MaskLike | None"
    grip: "MaskLike | None"
    config: Any
    method: str | AnyMethod | None
    preset: str | None
    progress: Progress | None
    timeout_s: float | None
    priority: int


@dataclass(frozen=True, eq=False)
class DragRequest:
    """A validated drag.

    Attributes:
        points: Inside the picture that the drag begins with.
        mask: What may change; None sets no limit.
        grip: What moves as one piece; None: a disc about each handle.
        settings: The method's own.
        method: Its row.
        base: Where the drag begins.
        progress: Told of the long stages' steps.
        timeout_s: Seconds within which it must end, waiting included; None: no limit.
        priority: On the worker; higher runs first.
        notices: What a person should know of the input.
        record: Whether every intermediate is kept.
        on_iteration: Shown every forward pass.
    """

    points: Points
    mask: Mask | None
    grip: Mask | None
    settings: Any
    method: AnyMethod
    base: Base
    progress: Progress
    timeout_s: float | None
    priority: int
    notices: tuple[str, ...]
    record: bool
    on_iteration: Callable[[Iteration[Any]], None] | None

    @classmethod
    def of(
        cls,
        points: PointsLike,
        image: Image,
        defaults: Any,
        *,
        mask: "MaskLike | None" = None,
        grip: "MaskLike | None" = None,
        config: Any = None,
        method: str | AnyMethod | None = None,
        preset: str | None = None,
        base: Base = "source",
        progress: Progress | None = None,
        timeout_s: float | None = None,
        priority: int = 0,
        record: bool = False,
        on_iteration: Callable[[Iteration[Any]], None] | None = None,
    ) -> "DragRequest":
        """Check what a drag on `image` was asked for.

        Args:
            defaults: The session's settings, for a drag that brings none.

        Raises:
            PointError, MaskError, ConfigError, SessionError: Naming what was seen.
        """
        row = row_of(method, preset)
        if base not in get_args(Base):
            known = ", ".join(get_args(Base))
            raise SessionError(f"there is no base {base!r}; known: {known}")
        settings = settings_of(row, config, defaults, preset)
        pairs = Points.of(points)
        pairs.check_inside(image.width, image.height)
        _check_history(len(pairs), settings.iterations)
        with listening() as heard:
            limit = _limit(mask, image, getattr(settings, "holds_without_mask", False))
            piece = _grip(grip, image, row)
        notices = _notices(mask, limit, pairs, settings)
        for notice in notices:
            warnings.warn(notice, InputWarning, stacklevel=4)
        return cls(
            points=pairs,
            mask=limit,
            grip=piece,
            settings=settings,
            method=row,
            base=base,
            progress=function("progress", progress) or silent,
            timeout_s=seconds("timeout_s", timeout_s),
            priority=checked_priority(priority),
            notices=(*heard, *notices),
            record=record,
            on_iteration=function("on_iteration", on_iteration),
        )

    @property
    def wants_output(self) -> bool:
        """Whether every forward pass goes on to the network's output."""
        return self.record or self.on_iteration is not None

    def steps(self, stage: str, job: Job[Any]) -> OnStep:
        """Return an `on_step` for a stage: it checks for cancellation and reports progress."""

        def on_step(done: int) -> None:
            job.check()
            self.progress(stage, done, getattr(self.settings, "active_steps", done))

        return on_step

    def report(self, iteration: Iteration[Any], job: Job[Any]) -> None:
        """Check for cancellation and report an iteration."""
        job.check()
        self.progress("drag", iteration.number + 1, self.settings.iterations)


def usually(options: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """Return a drag's options, with this preset where nobody has said how to drag."""
    unsaid = all(options.get(name) is None for name in ("preset", "method", "config"))
    return {**options, "preset": preset} if unsaid else dict(options)


def row_of(method: str | AnyMethod | None, preset: str | None) -> AnyMethod:
    """Return the method that was named, the preset's, or DragNoise. Raises ConfigError."""
    if preset is None:
        return method_row("dragnoise" if method is None else method)
    if method is not None:
        raise ConfigError(
            f"the preset {shown(preset)} brings its method; give one of them, not "
            f"method={shown(method)} too"
        )
    return method_row(preset_of(preset).method)


def settings_of(
    method: AnyMethod, config: Any, defaults: Any, preset: str | None = None
) -> DragSettings:
    """Return the settings of a drag: those given, the preset's, the session's, the method's own."""
    if config is not None and preset is not None:
        raise ConfigError(
            f"the preset {shown(preset)} brings its settings; give config or preset, not both"
        )
    if config is None:
        own = (
            defaults if isinstance(defaults, method.settings) else method.settings.beside(defaults)
        )
        config = own if preset is None else own.replace(**preset_of(preset).changes)
    if not isinstance(config, method.settings):
        wanted = method.settings.__name__
        seen = type(config).__name__
        raise ConfigError(f"the method {method.name} takes a {wanted} as config, got {seen}")
    settings: DragSettings = config
    return settings


def _limit(mask: "MaskLike | None", image: Image, holds: bool) -> Mask | None:
    """Return the mask that a drag obeys.

    None sets no limit; where the settings say so, it holds the whole picture in place.
    """
    if mask is not None:
        return Mask.of(mask, image.width, image.height)
    if holds:
        return Mask(np.zeros((image.height, image.width), dtype=np.bool_))
    return None


def _grip(grip: "MaskLike | None", image: Image, method: AnyMethod) -> Mask | None:
    """Return what moves as one piece. Raises ConfigError, MaskError."""
    if grip is None:
        return None
    if not method.grips:
        others = " or ".join(name for name, row in METHODS.items() if row.grips)
        raise ConfigError(
            f"the method {method.name} takes no grip; leave it out, or choose {others}"
        )
    piece = Mask.of(grip, image.width, image.height)
    if not piece.editable.any():
        raise MaskError(
            f"the grip marks none of {piece.editable.size} pixels (white); leave it out to move a "
            "disc about each handle"
        )
    return piece


def _notices(
    mask: "MaskLike | None", limit: Mask | None, points: Points, settings: Any
) -> tuple[str, ...]:
    """Return what a person should know of the mask that was given."""
    if mask is None or limit is None:
        return ()
    editable = limit.editable
    if not editable.any():
        return (
            "the mask marks nothing as editable (white), so the whole picture is held in place; "
            "leave the mask out to set no limit",
        )
    if editable.all():
        return (
            f"the mask marks all {editable.size} pixels as editable (white), so it holds nothing "
            "in place; leave it out, or make black what shall stay",
        )
    held = [not editable[round(y), round(x)] for x, y in points.handles]
    if settings.lam > 0 and all(held):
        share = f"{editable.mean():.0%} of the picture are editable"
        return (
            f"every handle ({len(held)} of {len(held)}) lies where the mask holds the picture in "
            f"place ({share}); the usual reason is an inverted mask: white may change",
        )
    return ()


def _check_history(points: int, iterations: int) -> None:
    """Check what every handle's place in every iteration takes. Raises PointError."""
    if points * iterations > _HISTORY:
        raise PointError(
            f"{points} points in {iterations} iterations are {points * iterations} places of "
            f"handles to keep, {_HISTORY} at most; give fewer points or iterations"
        )

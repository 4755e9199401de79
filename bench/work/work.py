"""Count the work of an edit.

The engine's own pipeline runs at full size on the meta device, which knows every shape and computes
nothing. A long stage repeats one thing (a step, an iteration), so a few repeats are run and the
rest follows from them: the last two are first compared, operator by operator. Counts belong to a
resident model that has dragged before: what it prepares once is not counted. Nor is the check of
the picture before its first drag (`check_pictures`, one pass of the VAE's decoder), which the
published code does not have.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch

from dragnoise.engine.backends.eager import FUSED_OPERATORS
from dragnoise.engine.config import DragConfig
from dragnoise.engine.diffusion.model import Model
from dragnoise.engine.diffusion.unet import UNet
from dragnoise.engine.diffusion.weights import Weights
from dragnoise.engine.drag.loop import LoopCache
from dragnoise.engine.drag.method import AnyMethod
from dragnoise.engine.errors import ConfigError
from dragnoise.engine.inputs.frame import Frame
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.inputs.mask import Mask
from dragnoise.engine.inputs.points import Points
from dragnoise.engine.methods import METHODS
from dragnoise.engine.pipelines import diffusion
from dragnoise.engine.pipelines.optimise import optimise
from dragnoise.engine.pipelines.prompts import notice_prompts
from dragnoise.engine.pipelines.source import Source
from dragnoise.engine.run import Run, StageCache
from dragnoise.engine.stages import embed

from .architectures import Architecture
from .counts import Counts
from .recorder import Recorder

__all__ = ["POLL_EVERY", "Case", "Trace", "Work", "count", "trace"]

POLL_EVERY = 8
"""Iterations between two reads of the stop condition, as the editor has it on CUDA."""

_META = torch.device("meta")
_FIRST_ONLY = ("encode", "condition", "invert", "start", "reference", "show")
"""Stages that a drag does not need on an image that is inverted already."""


class UnsteadyError(RuntimeError):
    """An error: repeats of a stage differ, so the work of many cannot follow from a few."""


@dataclass(frozen=True)
class Case:
    """An edit to count.

    Attributes:
        arch: A name in `ARCHITECTURES`, or a diffusers folder.
        size: (height, width) of the picture in pixels.
        mask: Whether something must stay.
        method: A name in `METHODS`.
        dtype: The networks' precision.
        points: How many pairs of handle and target there are.
    """

    arch: str = "sd15"
    size: tuple[int, int] = (512, 512)
    mask: bool = True
    method: str = "dragnoise"
    dtype: torch.dtype = torch.float16
    points: int = 1


@dataclass(frozen=True)
class Work:
    """An edit's work, counted.

    Attributes:
        case: The edit.
        iterations: Its iterations.
        active_steps: Its steps of inversion, and of denoising.
        poll_every: Iterations between two reads of the stop condition.
        successive: Whether the image was inverted already.
        run_steps: The steps that were run; the others are like the last.
        run_iterations: The iterations that were run, likewise.
        stages: Counts by stage, in the order in which they run.
    """

    case: Case
    iterations: int
    active_steps: int
    poll_every: int
    successive: bool
    run_steps: int
    run_iterations: int
    stages: Mapping[str, Counts]

    @property
    def total(self) -> Counts:
        """Counts of the whole edit."""
        return reduce(add, self.stages.values())

    def record(self) -> dict[str, Any]:
        """Return the work as a JSON document holds it."""
        record: dict[str, Any] = dataclasses.asdict(self.case)
        record["dtype"] = str(self.case.dtype).removeprefix("torch.")
        for entry in dataclasses.fields(self)[1:-1]:
            record[entry.name] = getattr(self, entry.name)
        stages = dict(self.stages) | {"total": self.total}
        record["stages"] = {name: counts.numbers() for name, counts in stages.items()}
        return record


@dataclass(frozen=True)
class Trace:
    """A few repeats of every stage, counted.

    Attributes:
        case: The edit.
        steps: The steps that were run.
        iterations: The iterations that were run.
        poll_every: Iterations between two reads of the stop condition.
        segments: By stage, the counts up to the end of the first repeat, of each repeat after it,
            and of what follows the last.
    """

    case: Case
    steps: int
    iterations: int
    poll_every: int
    segments: Mapping[str, Sequence[Counts]]

    def work(
        self,
        iterations: int,
        *,
        active_steps: int = 35,
        poll_every: int = POLL_EVERY,
        successive: bool = False,
    ) -> Work:
        """Return the work of a whole edit, with as many repeats as the trace has, or more.

        Args:
            iterations: The edit's iterations.
            active_steps: Its steps.
            poll_every: Iterations between two reads of the stop condition.
            successive: Whether the image is inverted already.

        Raises:
            UnsteadyError: Repeats of a stage differ.
        """
        steps = active_steps - self.steps
        polls = -(-iterations // poll_every) - -(-self.iterations // self.poll_every)
        more = {
            "invert": (steps,),
            "drag": (iterations - self.iterations, polls),
            "show": (steps,),
            "propagate": (steps,),
        }
        stages = {
            name: _prolonged(name, parts, *more.get(name, (0,)))
            for name, parts in self.segments.items()
        }
        if successive:
            stages = {name: stages[name] for name in stages if name not in _FIRST_ONLY}
        return Work(
            case=self.case,
            iterations=iterations,
            active_steps=active_steps,
            poll_every=poll_every,
            successive=successive,
            run_steps=self.steps,
            run_iterations=self.iterations,
            stages=stages,
        )


def count(
    arch: str = "sd15",
    size: tuple[int, int] = (512, 512),
    iterations: int = 40,
    mask: bool = True,
    method: str = "dragnoise",
    successive: bool = False,
    dtype: torch.dtype = torch.float16,
    *,
    active_steps: int = 35,
    poll_every: int = POLL_EVERY,
) -> Work:
    """Count the work of one edit, without the text encoder's.

    Args:
        arch, size, mask, method, dtype: See `Case`.
        iterations, successive, active_steps, poll_every: See `Work`.

    Raises:
        ConfigError: There is no such method, or nothing to count.
        ModelError: There is no such architecture.
        UnsteadyError: Repeats of a stage differ.
    """
    if min(iterations, active_steps, poll_every) < 1:
        raise ConfigError(
            "work is counted for 1 iteration, 1 step and a poll every iteration, or more"
        )
    case = Case(arch, size, mask, method, dtype)
    run_every = 2 if iterations >= 4 else poll_every
    traced = trace(case, min(active_steps, 3), min(iterations, 4), run_every)
    return traced.work(
        iterations, active_steps=active_steps, poll_every=poll_every, successive=successive
    )


def trace(case: Case, steps: int = 3, iterations: int = 4, poll_every: int = 2) -> Trace:
    """Run a short edit and count it.

    The first repeats may differ; the last two must be alike, and one of two iterations is polled.
    """
    if case.method not in METHODS:
        raise ConfigError(f"there is no method {case.method!r}; known: {', '.join(METHODS)}")
    architecture = Architecture.of(case.arch)
    unet, vae = architecture.networks(_META, case.dtype)
    recorder = Recorder(_META)
    recorder.register("unet", unet)
    recorder.register("vae", vae)
    with recorder.watching():
        model = Model(
            case.arch,
            UNet(unet, FUSED_OPERATORS),
            vae,
            torch.nn.Identity(),
            None,
            architecture.scheduler,
            _META,
            DragConfig(),
            weights=Weights({"unet": unet, "vae": vae}),
        )
        method = METHODS[case.method]
        usual = method.settings()
        config = usual.replace(strength=steps / usual.steps, iterations=iterations)
        _edit(case, method, model, config, poll_every, recorder)
    return Trace(case, steps, iterations, poll_every, recorder.stages)


def _edit(
    case: Case,
    method: AnyMethod,
    model: Model,
    config: Any,
    poll_every: int,
    recorder: Recorder,
) -> None:
    """Run an edit as the engine does, from the pixels to the pixels."""
    bare = method.prepare(model)
    recorder.register("unet", bare.unet.network)
    recorder.register("vae", bare.vae)
    warm_up = config.replace(strength=1 / config.steps, iterations=0)
    _run(case, method, model, bare, warm_up, poll_every, None)  # prepares what a model keeps
    _run(case, method, model, bare, config, poll_every, recorder)


def _run(
    case: Case,
    method: AnyMethod,
    model: Model,
    bare: Model,
    config: Any,
    poll_every: int,
    recorder: Recorder | None,
) -> None:
    """Run an edit; `bare` is what the method makes of the model."""
    observers = () if recorder is None else (recorder.stage,)
    cache = StageCache()
    run = Run(observers, cache)
    cache.put(method.prepare, (model,), bare)
    width = bare.unet.network.config["cross_attention_dim"]
    text = torch.zeros(1, 77, width, device=_META, dtype=bare.dtype)
    cache.put(embed, (bare, "", None), text)  # the text encoder is not part of the work
    cache.put(notice_prompts, (bare, "", "", 1.0), ())
    source = Source(Image(np.zeros((*case.size, 3), np.uint8)), "")

    def mark(*_: object) -> None:
        if recorder is not None:
            recorder.mark()

    prepared = diffusion.prepare(run, model, source, method, config, on_step=mark)
    scene = prepared.scene(*_drag(case, prepared.frame), config)
    scene, optimum = optimise(
        run, method, scene, prepared, LoopCache(), mark, poll_every=poll_every
    )
    diffusion.finish(run, method, scene, optimum, on_step=mark, on_shown=mark)


def _drag(case: Case, frame: Frame) -> tuple[Points, Mask | None]:
    """Return pairs from the middle to the far corner, which they do not reach, and a mask."""
    height, width = case.size
    middle = (width / 2, height / 2)
    corner = (width - 1.0, height - 1.0)
    points = Points((middle,) * case.points, (corner,) * case.points)
    mask = Mask(np.zeros(case.size, np.bool_)) if case.mask else None
    return points, mask


def _prolonged(stage: str, parts: Sequence[Counts], more: int, polls: int = 0) -> Counts:
    """Return the counts of a whole stage.

    Args:
        stage: The stage's name.
        parts: Its segments in a trace; of its last two repeats one is polled, if it polls.
        more: How many repeats the whole has beside those.
        polls: How many polls, likewise.

    Raises:
        UnsteadyError: The last two repeats differ in more than the poll.
    """
    whole = reduce(add, parts)
    if not more and not polls:
        return whole
    free, polled = sorted(parts[-3:-1], key=lambda repeat: repeat.synchronisations)
    poll = {"synchronisations"} if stage == "drag" else set()
    unlike = ", ".join(sorted(set(free.differences(polled)) - poll))
    if unlike:
        raise UnsteadyError(
            f"repeats of {stage} are not alike in {unlike}: "
            "the work of many does not follow from a few"
        )
    longer = whole + free.times(more)
    growth = more * max(0, parts[-2].live_bytes - parts[-3].live_bytes)
    waits = polls * (polled.synchronisations - free.synchronisations)
    return dataclasses.replace(
        longer,
        synchronisations=longer.synchronisations + waits,
        peak_bytes=whole.peak_bytes + growth,
        live_bytes=whole.live_bytes + growth,
    )

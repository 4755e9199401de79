"""One drag of a session, from its request to its result, as the worker does it.

    request -> base -> prepare -> scene -> warm start -> loop -> finish -> result, and a new state

How an image is prepared and finished is the method's pipeline's (`pipelines/diffusion.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion.lora.adapter import AdapterUse
from ..drag.loop import Iteration, Optimum
from ..drag.method import AnyMethod, Start, WarmStart
from ..drag.scene import Scene
from ..drag.start import reference
from ..errors import SessionError
from ..inputs.image import Image
from ..inputs.points import Points
from ..pipelines.optimise import optimise
from ..pipelines.pipeline import OnStep, Prepared
from ..pipelines.runtime import Runtime
from ..pipelines.source import Source, preparation_key
from ..run import Run, StageCache
from ..system.timers import StageTimes
from ..system.worker import Job
from .request import Base, DragRequest
from .result import EditResult, History
from .state import LastDrag, State
from .stream import PreviewPacer

__all__ = ["Dragger", "Moment"]


@dataclass(frozen=True, eq=False)
class Moment:
    """An iteration of a drag, and all that it is an iteration of.

    Attributes:
        iteration: Its number, handles, loss and forward pass.
        scene: What is dragged.
        prepared: On what.
        run: What runs and watches stages.
    """

    iteration: Iteration[Any]
    scene: Scene[Any, Any]
    prepared: Prepared[Any]
    run: Run


@dataclass(frozen=True, eq=False)
class Dragger:
    """A session's means to drag, as they are at the moment.

    Attributes:
        runtime: The model and what all edits share.
        cache: The session's memory.
        use: The adapter that is merged into the weights.
    """

    runtime: Runtime
    cache: StageCache
    use: AdapterUse

    def drag(
        self,
        request: DragRequest,
        state: State,
        job: Job[Any],
        each: Callable[[Moment], None],
        pacer: PreviewPacer | None = None,
    ) -> tuple[EditResult, State]:
        """Do a drag, and return its result and the state that it leads to.

        Args:
            request: What was asked for.
            state: What the session shows now.
            job: Ends the drag where it is cancelled or too late.
            each: Called after every iteration.
            pacer: Counts the loop's time.
        """
        method = request.method
        device = self.runtime.model.device
        times = StageTimes(device)
        total = StageTimes(device)
        run = Run((*self.runtime.observers, times), self.cache)
        base, source = self.base_of(request, state)
        with total("total"):
            on_step = request.steps("invert", job)
            prepared = self.prepare(run, source, method, request.settings, on_step)
            scene = prepared.scene(
                request.points, request.mask, request.settings, request.wants_output, request.grip
            )
            ended, optimum = self._optimise(
                run, request, base, state, prepared, scene, job, each, pacer
            )
            end = method.pipeline.finish(
                run,
                method,
                ended,
                optimum,
                on_step=request.steps("propagate", job),
                on_shown=request.steps("show", job),
            )
            image = prepared.frame.image_of(end.pixels)
        record = method.pipeline.record(prepared, scene, optimum, end) if request.record else None
        timings_ms = times.ms | total.ms
        result = self._result(request, base, prepared, optimum, image, timings_ms, record)
        return result, self._state(request, base, state, prepared, scene, optimum, image)

    def prepare(
        self, run: Run, source: Source, method: AnyMethod, settings: Any, on_step: OnStep
    ) -> Prepared[Any]:
        """Return a source as a method drags on it; what is remembered is not computed again."""
        pipeline = method.pipeline
        model = pipeline.model(self.runtime)
        notices = source.image.notices
        if self.runtime.check_pictures and pipeline.notice is not None:
            notices += pipeline.notice(run, model, source, method, settings)
        prepared: Prepared[Any] = pipeline.prepare(
            run, model, source, method, settings, self.use, on_step=on_step
        )
        return replace(prepared, notices=(*notices, *prepared.notices)) if notices else prepared

    def preview(self, method: AnyMethod, moment: Moment) -> Image:
        """Return what the picture is expected to become."""
        prepared = moment.prepared
        pixels = method.pipeline.preview(
            moment.run,
            method,
            moment.scene,
            prepared.start,
            moment.iteration,
            self.runtime.preview_vae,
        )
        return prepared.frame.image_of(pixels)

    def base_of(self, request: DragRequest, state: State) -> tuple[Base, Source]:
        """Return where a drag begins, and on what picture."""
        base = request.base
        drag = state.drag
        key = self.key(request.method, request.settings)
        same = drag is not None and drag.key == key and request.method.goes_on
        if base == "last" and not same:
            why = "there is none"
            if drag is not None:
                why = "its method, its adapter or settings of its inversion were others"
            if not request.method.goes_on:
                why = f"the method {request.method.name} ends elsewhere than it begins"
            raise SessionError(
                f"the last drag cannot go on: {why}; use base='source' or base='result'"
            )
        if base == "result" and drag is not None and not same:
            base = "inverted"
        source = state.source
        if base == "inverted" and drag is not None:
            source = Source(state.image, source.prompt, source.negative_prompt)
        return base, source

    def key(self, method: AnyMethod, settings: Any) -> str:
        """Digest what a preparation depends on beside the source."""
        model = method.pipeline.model(self.runtime)
        others = () if model is self.runtime.model else (model.digest,)
        return preparation_key(method, settings, self.use, *others)

    def _optimise(
        self,
        run: Run,
        request: DragRequest,
        base: Base,
        state: State,
        prepared: Prepared[Any],
        scene: Scene[Any, Any],
        job: Job[Any],
        each: Callable[[Moment], None],
        pacer: PreviewPacer | None,
    ) -> tuple[Scene[Any, Any], Optimum]:
        method = request.method
        warm = _warm_start(run, method, base, state.drag, prepared, scene)

        def shown(on: Prepared[Any], scene: Scene[Any, Any], iteration: Iteration[Any]) -> None:
            request.report(iteration, job)
            each(Moment(iteration, scene, on, run))

        return optimise(
            run,
            method,
            scene,
            prepared,
            self.runtime.loops,
            shown,
            poll_every=self.runtime.poll_every,
            warm=warm,
            timed=iter if pacer is None else pacer.timed,
        )

    def _result(
        self,
        request: DragRequest,
        base: Base,
        prepared: Prepared[Any],
        optimum: Optimum,
        image: Image,
        timings_ms: dict[str, float],
        record: Any,
    ) -> EditResult:
        frame = prepared.frame
        handles = optimum.handles.cpu()  # at once: a read waits for the device
        track = np.array([frame.image_points(each) for each in handles])
        settings = self.runtime.settings(
            request.method.name, request.settings, base=base, adapter=self.use.key
        )
        return EditResult(
            image=image,
            points=Points(frame.image_points(handles[-1]), request.points.targets),
            reached=optimum.reached,
            history=History(optimum.losses.cpu().numpy(), track),
            timings_ms=timings_ms,
            settings=settings,
            record=record,
            cache=self.runtime.numbers(),
            warnings=(*request.notices, *prepared.notices),
        )

    def _state(
        self,
        request: DragRequest,
        base: Base,
        state: State,
        prepared: Prepared[Any],
        scene: Scene[Any, Any],
        optimum: Optimum,
        image: Image,
    ) -> State:
        goes_on = base == "last" and state.drag is not None
        drag = LastDrag(
            key=self.key(request.method, request.settings),
            inversion=prepared.inversion,
            begun=state.drag.begun if goes_on and state.drag is not None else optimum.start,
            variable=optimum.variable,
            placed=scene.handles,
            now=_cells(optimum.handles[-1], scene.resolution),
        )
        return State(prepared.source, image, drag)


def _warm_start(
    run: Run,
    method: AnyMethod,
    base: Base,
    drag: LastDrag | None,
    prepared: Prepared[Any],
    scene: Scene[Any, Any],
) -> WarmStart | None:
    """Return where the variable begins; None for the method's own start."""
    if drag is None or base in ("source", "inverted"):
        return None
    _check(drag, prepared, scene)
    if base == "result":
        return WarmStart(drag.variable)
    forward = run(
        reference,
        method,
        prepared.place,
        run.once(_begun, prepared.start, drag.begun),
        scene.settings,
        scene.resolution,
        prepared.dtype,
        scene.needs_output,
    )
    return WarmStart(drag.variable, forward, _handles_now(scene.handles, drag))


def _check(drag: LastDrag, prepared: Prepared[Any], scene: Scene[Any, Any]) -> None:
    """Raise SessionError for what a file said of the last drag, and this picture cannot have had.

    It would be read outside its memory.
    """
    wanted = prepared.start.variable.shape
    rows, columns = scene.resolution
    inside = (drag.now >= 0) & (drag.now < drag.now.new_tensor([rows, columns]))
    if drag.variable.shape != wanted or drag.begun.shape != wanted or not bool(inside.all()):
        raise SessionError(
            f"the last drag cannot go on: it optimised {list(drag.variable.shape)}, here that is "
            f"{list(wanted)}, or left handles outside the picture; use base='source'"
        )


def _cells(handles: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Return handles as whole cells inside the supervision map, int64 [N, 2]."""
    last = torch.tensor(resolution, device=handles.device) - 1
    return torch.minimum(handles.round().long().clamp(min=0), last)


def _begun(start: Start[Any], variable: Tensor) -> Start[Any]:
    return replace(start, variable=variable)


def _handles_now(placed: Tensor, drag: LastDrag) -> Tensor:
    """Return where handles [N, 2] are: where the last drag left those it had, else as placed."""
    pairs = list(zip(drag.placed, drag.now, strict=True))
    handles = []
    for handle in placed:
        moved = (now for before, now in pairs if torch.equal(before, handle))
        handles.append(next(moved, handle))
    return torch.stack(handles)

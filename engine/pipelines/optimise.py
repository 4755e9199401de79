"""The middle of an edit: a drag's loop, run through the seam like the stages around it.

Most methods drag at one step. One that denoises between its updates has a loop at each of several
steps, where the next begins at the last one's optimum (`Method.rounds`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from ..drag.loop import Iteration, LoopCache, Optimum
from ..drag.method import AnyMethod, WarmStart
from ..drag.scene import Scene
from ..drag.start import reference
from ..run import Run
from ..system.finite import check_finite, check_loss
from .pipeline import Prepared

__all__ = ["optimise"]

Iterations = Iterable[Iteration[Any]]


def optimise(
    run: Run,
    method: AnyMethod,
    scene: Scene[Any, Any],
    prepared: Prepared[Any],
    loops: LoopCache,
    each: Callable[[Prepared[Any], Scene[Any, Any], Iteration[Any]], None],
    *,
    poll_every: int,
    warm: WarmStart | None = None,
    timed: Callable[[Iterations], Iterator[Iteration[Any]]] = iter,
) -> tuple[Scene[Any, Any], Optimum]:
    """Iterate a drag to its end, watched as "drag".

    Args:
        prepared: What the scene is on.
        loops: The last loops, for a drag that is like one of them.
        each: Called with what the loop begins with, its scene, and every iteration after it,
            outside the watched time.
        poll_every: Iterations between two reads of the stop condition.
        warm: Where the drag begins; None: at the method's own start.
        timed: Counts the loop's own time, as `PreviewPacer.timed` does.

    Returns:
        The scene at whose place the drag ended, and its optimum.

    Raises:
        NumbersError: A loss, or the optimum, is not finite.
    """

    def loop(
        scene: Scene[Any, Any], prepared: Prepared[Any], warm: WarmStart | None, begun: int
    ) -> Optimum:
        lent = loops.lent(method, scene, prepared.start, prepared.dtype, poll_every, warm)
        with ExitStack() as held:
            with run.watched("drag"):
                found = held.enter_context(lent)
            for iteration in timed(run.watching("drag", found)):
                each(prepared, scene, replace(iteration, number=begun + iteration.number))
            with run.watched("drag"):
                optimum = found.optimum()
            _check(optimum)
        return optimum

    if method.aim is not None:
        with run.watched("aim"), torch.no_grad():
            scene, start = method.aim(scene, prepared.start, prepared.inversion)
        updates = scene.settings.iterations > 0  # without, nothing is compared with it
        # The next drag of a source finds it again.
        known = run(reference, *_unedited(method, scene, prepared)) if updates else None
        prepared = replace(prepared, place=scene.place, start=start)
        warm = WarmStart(start.variable, known)
    if method.rounds is None:
        return scene, loop(scene, prepared, warm, 0)

    rounds = method.pipeline.rounds
    places = rounds.places(run, prepared)
    ends: list[Optimum] = []
    variable = prepared.start.variable
    before = prepared.place
    for updates, place in zip(method.rounds(scene.settings), places, strict=False):
        if ends:
            with run.watched("denoise"):
                variable = rounds.step(before, ends[-1].variable)
        before = place
        part = replace(scene, place=place, settings=scene.settings.replace(iterations=updates))
        there = replace(prepared, place=place, start=method.start(place))
        with run.watched("reference"):
            known = reference(*_unedited(method, part, there))
        handles = ends[-1].handles[-1] if ends else None
        begun = sum(len(end.losses) for end in ends)
        ends.append(loop(part, there, WarmStart(variable, known, handles), begun))
        if ends[-1].reached:
            break
    return replace(scene, place=before), _joined(ends)


def _unedited(method: AnyMethod, scene: Scene[Any, Any], prepared: Prepared[Any]) -> Any:
    """Return what `reference` is asked for what the unedited picture shows at a place."""
    return (
        method,
        prepared.place,
        prepared.start,
        scene.settings,
        scene.resolution,
        prepared.dtype,
        scene.needs_output,
    )


def _joined(ends: list[Optimum]) -> Optimum:
    """Return the optimum of all rounds."""
    return replace(
        ends[-1],
        start=ends[0].start,
        losses=torch.cat([end.losses for end in ends]),
        handles=torch.cat([end.handles for end in ends]),
    )


def _check(optimum: Optimum) -> None:
    """Raise NumbersError where a drag has left the numbers, naming the iteration."""
    for number, loss in enumerate(optimum.losses.tolist()):
        check_loss("drag", number, loss)
    check_finite("drag", optimum.variable)

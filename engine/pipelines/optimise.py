"""The middle of an edit: a drag's loop, run through the seam like the stages around it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..drag.loop import Iteration, LoopCache, Optimum
from ..drag.method import AnyMethod, WarmStart
from ..drag.scene import Scene
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
    each: Callable[[Iteration[Any]], None],
    *,
    poll_every: int,
    warm: WarmStart | None = None,
    timed: Callable[[Iterations], Iterator[Iteration[Any]]] = iter,
) -> Optimum:
    """Iterate a drag to its end, watched as "drag", and return its optimum.

    Args:
        prepared: What the scene is on.
        loops: The last loop, for a drag that is like it.
        each: Called after every iteration, outside the watched time.
        poll_every: Iterations between two reads of the stop condition.
        warm: Where the drag begins; None: at the method's own start.
        timed: Counts the loop's own time, as `PreviewPacer.timed` does.

    Raises:
        NumbersError: A loss, or the optimum, is not finite.
    """
    with run.watched("drag"):
        loop = loops.get(method, scene, prepared.start, prepared.dtype, poll_every, warm)
    for iteration in timed(run.watching("drag", loop)):
        each(iteration)
    with run.watched("drag"):
        optimum = loop.optimum()
    _check(optimum)
    return optimum


def _check(optimum: Optimum) -> None:
    """Raise NumbersError where a drag has left the numbers, naming the iteration."""
    for number, loss in enumerate(optimum.losses.tolist()):
        check_loss("drag", number, loss)
    check_finite("drag", optimum.variable)

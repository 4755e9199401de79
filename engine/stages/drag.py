"""The optimisation: features under the handles move to the targets.

The first forward pass, on the unchanged variable, is both the reference and iteration 0: the two are the same bits, as the method needs
(sign(0) = 0 in the mask term, where a difference of rounding would decide the first update).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..methods import Method, Scene, Seen

__all__ = ["Iteration", "Optimum", "adam", "drag"]


@dataclass(frozen=True, eq=False)
class Iteration:
    """What `on_iteration` is shown: the number from 0, the handles int64 [N, 2], the forward pass. Reading a tensor's value waits for the device."""

    number: int
    handles: Tensor
    seen: Seen


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the drag ended.

    variable: float32, at the stop, or after the last update; start: its first value. constants: the method's own.
    losses: float32 [updates]. handles: int64 [iterations seen, N, 2], (row, column) after the tracking of each iteration.
    reference: the first forward pass (None if there was no iteration). reached: every handle is where it should be.
    """

    variable: Tensor
    start: Tensor
    constants: Any
    losses: Tensor
    handles: Tensor
    reference: Seen | None
    reached: bool


def adam(
    variable: Tensor, gradient: Tensor, first: Tensor, second: Tensor, update: int, lr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One Adam update (Kingma and Ba 2015; 0.9, 0.999, 1e-8, bias-corrected): the new variable and moments. `update` counts from 1."""
    first = first.lerp(gradient, 0.1)
    second = torch.addcmul(second * 0.999, gradient, gradient, value=0.001)
    scale = (second / (1 - 0.999**update)).sqrt() + 1e-8
    return variable - lr / (1 - 0.9**update) * first / scale, first, second


def drag(
    method: Method, scene: Scene, poll_every: int, *, on_iteration: Callable[[Iteration], None] | None = None
) -> Optimum:
    """Optimise until every handle has arrived or `scene.config.iterations` updates are done.

    The stop condition lives on the device and freezes everything once it holds; it is read every `poll_every` iterations, which changes the time
    that passes, never the result.
    """
    with torch.no_grad():
        constants, start = method.start(scene)
    variable, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
    reference, losses, tracks = None, [], []
    stopped = torch.zeros((), dtype=torch.bool, device=start.device)
    updates = torch.zeros((), dtype=torch.int64, device=start.device)
    for k in range(scene.config.iterations):
        leaf = variable.detach().requires_grad_()
        with torch.enable_grad():
            seen = method.features(scene, constants, leaf)
        if reference is None:
            reference = seen.detach()
            state = method.begin(scene, reference)
        else:
            state = method.follow(scene, reference, seen, state)
        tracks.append(state.handles)
        stopped = stopped | method.finished(scene, state)
        if on_iteration is not None:
            on_iteration(Iteration(k, state.handles, seen.detach()))
        if k % poll_every == 0 and bool(stopped):
            break
        with torch.enable_grad():
            loss = method.supervise(scene, reference, seen, state)
        (gradient,) = torch.autograd.grad(loss, leaf)
        losses.append(loss.detach())
        moved, first, second = adam(variable, gradient, first, second, k + 1, scene.config.lr)
        variable = torch.where(stopped, variable, moved)
        updates = updates + ~stopped
    count, reached = int(updates), bool(stopped)
    empty = torch.zeros(0, device=start.device)
    return Optimum(
        variable,
        start,
        constants,
        torch.stack(losses[:count]).float() if count else empty,
        torch.stack(tracks[: count + 1]) if tracks else scene.handles[None],
        reference,
        reached,
    )

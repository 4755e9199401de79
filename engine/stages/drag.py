"""The optimisation: features under the handles move to the targets.

The first forward pass, on the unchanged variable, is both the reference and iteration 0: the two are the same bits, as the method needs
(sign(0) = 0 in the mask term, where a difference of rounding would decide the first update).

An iteration works on buffers that stay where they are. Unless its method reads values on the host, it is captured as one graph on CUDA and replayed.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dragnoise.kernels.adam import adam_step

from ..capture import Graph, LateFlag, NullGraph, graph_on
from ..methods import Method, Scene, Seen, State

__all__ = ["Iteration", "Optimum", "drag"]


@dataclass(frozen=True, eq=False)
class Iteration:
    """What `on_iteration` is shown: the number from 0, the handles int64 [N, 2], the forward pass. Reading a tensor's value waits for the device; on
    CUDA the next iteration overwrites them all."""

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


def drag(
    method: Method, scene: Scene, poll_every: int, *, on_iteration: Callable[[Iteration], None] | None = None
) -> Optimum:
    """Optimise until every handle has arrived or `scene.config.iterations` updates are done.

    The stop condition lives on the device and freezes everything once it holds; it is read every `poll_every` iterations, which changes the time
    that passes, never the result. A method that reads values on the host anyway is stopped at once.
    """
    with torch.no_grad():
        constants, start = method.start(scene)
    loop = _Loop(method, scene, constants, start)
    ask, every = (LateFlag(start.device).ask, poll_every) if method.captured else (bool, 1)
    for k in range(scene.config.iterations):
        loop.turn()
        if on_iteration is not None:
            on_iteration(Iteration(k, loop.state.handles.clone(), loop.seen))
        if k % every == 0 and ask(loop.stopped):
            break
    updates, reached = int(loop.updates), bool(loop.stopped)
    return Optimum(
        loop.variable,
        start,
        constants,
        loop.losses[:updates],
        loop.tracks[: updates + 1] if scene.config.iterations else scene.handles[None],
        loop.reference,
        reached,
    )


class _Loop:
    """The buffers of a drag and one turn on them. Iteration 0 runs as it is and leaves the reference; the others are a graph."""

    seen: Seen
    state: State

    def __init__(self, method: Method, scene: Scene, constants: Any, start: Tensor) -> None:
        iterations, device = scene.config.iterations, start.device
        self._method, self._scene, self._constants = method, scene, constants
        self.variable, self._first, self._second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        # What a network of low precision reads: Adam writes it beside the float32 variable.
        self._rounded = None if scene.model.dtype == torch.float32 else start.to(scene.model.dtype)
        self.losses = torch.zeros(iterations, device=device)
        self.tracks = scene.handles.new_zeros(iterations, *scene.handles.shape)
        self.stopped = torch.zeros((), dtype=torch.bool, device=device)
        self.updates = torch.zeros((), dtype=torch.int64, device=device)
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self.reference: Seen | None = None
        self._capture = graph_on(device) if method.captured else NullGraph
        self._graph: Graph | None = None

    def turn(self) -> None:
        if self.reference is None:
            self._iterate(self._begin)
        else:
            self._graph = self._graph or self._capture(lambda: self._iterate(self._follow))
            self._graph()

    def _iterate(self, look: Callable[[Seen], None]) -> None:
        method, scene = self._method, self._scene
        leaf = (self.variable if self._rounded is None else self._rounded).detach().requires_grad_()
        with torch.enable_grad():
            seen = method.features(scene, self._constants, leaf)
        look(seen.detach())
        self.tracks.index_copy_(0, self._number[None], self.state.handles[None])
        self.stopped |= method.finished(scene, self.state)
        assert self.reference is not None
        with torch.enable_grad():
            loss = method.supervise(scene, self.reference, seen, self.state)
        self.losses.index_copy_(0, self._number[None], loss.detach().float()[None])
        self._number += 1
        gradient = method.gradient(loss, leaf)
        moments = self._first, self._second
        adam_step(self.variable, gradient, *moments, self._rounded, self._number, self.stopped, scene.config.lr)
        self.updates += ~self.stopped

    def _begin(self, seen: Seen) -> None:
        self.seen = self.reference = seen
        self.state = _own(self._method.begin(self._scene, seen))

    def _follow(self, seen: Seen) -> None:
        assert self.reference is not None
        self.seen = seen
        _overwrite(self.state, self._method.follow(self._scene, self.reference, seen, self.state))


def _own(state: State) -> State:
    """A copy in buffers of the loop's own."""
    return dataclasses.replace(state, **{name: value.clone() for name, value in vars(state).items()})


def _overwrite(buffers: State, state: State) -> None:
    for name, value in vars(state).items():
        getattr(buffers, name).copy_(value)

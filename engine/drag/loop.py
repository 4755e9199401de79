"""The optimisation: features under the handles move to the targets.

The first forward pass, on the unchanged variable, is both the reference and iteration 0: the two are the same bits, as the method needs
(sign(0) = 0 in the mask term, where a difference of rounding would decide the first update). Only a drag that goes on from an earlier one brings
its reference along.

An iteration works on buffers that stay where they are. Unless its method reads values on the host, it is captured as one graph on CUDA and replayed,
by every drag that is like it (`Loops`).
"""

import dataclasses
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from dragnoise.kernels.adam import adam_step

from ..methods import Forward, Method, Scene, Start, State
from ..system.cuda_graphs import Graph, LateFlag, NullGraph, graph_on

__all__ = ["Iteration", "LoopCache", "Optimum", "drag", "driven", "iterations"]

S = TypeVar("S", State, Forward)
T = TypeVar("T")
Y = TypeVar("Y")


@dataclass(frozen=True, eq=False)
class Iteration:
    """What `on_iteration` is shown: the number from 0, the handles int64 [N, 2], the loss float32 [], the forward pass, and the variable, which
    has been updated since. Reading a tensor's value waits for the device; the next iteration or the next drag overwrites them all."""

    number: int
    handles: Tensor
    loss: Tensor
    seen: Forward
    variable: Tensor


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the drag ended.

    variable: float32, at the stop, or after the last update; start: its first value. constants: the method's own.
    losses: float32 [updates]. handles: int64 [iterations seen, N, 2], (row, column) after the tracking of each iteration.
    reference: what the drag was compared with (None if there was no iteration). reached: every handle is where it should be.
    """

    variable: Tensor
    start: Tensor
    constants: Any
    losses: Tensor
    handles: Tensor
    reference: Forward | None
    reached: bool


def drag(
    method: Method,
    scene: Scene,
    poll_every: int,
    *,
    prepared: Start | None = None,
    loops: "LoopCache | None" = None,
    on_iteration: Callable[[Iteration], None] | None = None,
) -> Optimum:
    """Optimise until every handle has arrived or `scene.config.iterations` updates are done.

    The stop condition lives on the device and freezes everything once it holds; it is read every `poll_every` iterations, which changes the time
    that passes, never the result. A method that reads values on the host anyway is stopped at once.
    prepared: what `method.start` gives at this place, where it is at hand. loops: buffers and graphs of earlier drags, to be used again.
    """
    turns = iterations(method, scene, poll_every, prepared=prepared, loops=loops)
    return driven(turns, on_iteration or (lambda iteration: None))


def driven(turns: Generator[Y, None, T], each: Callable[[Y], object]) -> T:
    """Run to the end, showing every turn to `each`; what it ends with."""
    while True:
        try:
            turn = next(turns)
        except StopIteration as done:
            found: T = done.value
            return found
        each(turn)


def iterations(
    method: Method,
    scene: Scene,
    poll_every: int,
    *,
    prepared: Start | None = None,
    loops: "LoopCache | None" = None,
) -> Generator[Iteration, None, Optimum]:
    """`drag`, one iteration at a time. What was begun and not finished is dropped with the generator."""
    if prepared is None:
        with torch.no_grad():
            prepared = method.start(scene)
    loop = (loops or LoopCache()).one(method, scene, prepared)
    ask, every = (
        (LateFlag(prepared.variable.device).ask, poll_every) if method.captured else (bool, 1)
    )
    for k in range(scene.config.iterations):
        loop.turn()
        yield Iteration(k, loop.tracks[k], loop.losses[k], loop.seen, loop.variable)
        if k % every == 0 and ask(loop.stopped):
            break
    return loop.optimum()


class LoopCache:
    """The buffers and the graph of the last drag, handed to the next one if it is alike: the same place, settings and number of handles."""

    def __init__(self) -> None:
        self._last: _Loop | None = None

    def one(self, method: Method, scene: Scene, prepared: Start) -> "_Loop":
        """A loop ready for its first turn."""
        if self._last is None or not self._last.serves(method, scene, prepared):
            self._last = _Loop(method, scene, prepared)
        self._last.reset(scene)
        return self._last


class _Loop:
    """The buffers of a drag and one turn on them. Iteration 0 runs as it is and settles the reference; the others are a graph."""

    seen: Forward
    state: State

    def __init__(self, method: Method, scene: Scene, prepared: Start) -> None:
        iterations, start = scene.config.iterations, prepared.variable
        device = start.device
        self._method, self._prepared = method, prepared
        self._scene = dataclasses.replace(
            scene,
            handles=scene.handles.clone(),
            targets=scene.targets.clone(),
            keep=None if scene.keep is None else scene.keep.clone(),
            origin=None,  # `reset` is told
        )
        self.variable, self._first, self._second = (torch.zeros_like(start) for _ in range(3))
        # What a network of low precision reads: Adam writes it beside the float32 variable.
        self._rounded = None if scene.model.dtype == torch.float32 else start.to(scene.model.dtype)
        self.losses = torch.zeros(iterations, device=device)
        self.tracks = scene.handles.new_zeros(iterations, *scene.handles.shape)
        self.stopped = torch.zeros((), dtype=torch.bool, device=device)
        self.updates = torch.zeros((), dtype=torch.int64, device=device)
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._reference: Forward | None = None
        self._begun = False
        self._capture = graph_on(device) if method.captured else NullGraph
        self._graph: Graph | None = None

    def serves(self, method: Method, scene: Scene, prepared: Start) -> bool:
        """Whether that drag differs from this one only in what `reset` writes."""
        mine, alike = self._scene, ("model", "latent", "conditioning")
        return (
            method is self._method
            and prepared is self._prepared
            and all(getattr(scene, name) is getattr(mine, name) for name in alike)
            and (scene.index, scene.resolution, scene.config)
            == (mine.index, mine.resolution, mine.config)
            and scene.handles.shape == mine.handles.shape
            and (scene.keep is None, scene.wants_noise) == (mine.keep is None, mine.wants_noise)
        )

    def reset(self, scene: Scene) -> None:
        """Everything as before the first turn of that drag."""
        mine, self._origin = self._scene, scene.origin
        mine.handles.copy_(scene.handles)
        mine.targets.copy_(scene.targets)
        if mine.keep is not None and scene.keep is not None:
            mine.keep.copy_(scene.keep)
        self.variable.copy_(
            self._prepared.variable if scene.origin is None else scene.origin.variable
        )
        if self._rounded is not None:
            self._rounded.copy_(self.variable)
        for buffer in (
            self._first,
            self._second,
            self.losses,
            self.tracks,
            self.stopped,
            self.updates,
            self._number,
        ):
            buffer.zero_()
        self._begun = False

    def turn(self) -> None:
        if not self._begun:
            self._iterate(self._begin)
            self._begun = True
        else:
            self._graph = self._graph or self._capture(lambda: self._iterate(self._follow))
            self._graph()

    def optimum(self) -> Optimum:
        """A copy of where the loop is: the next drag may use the buffers."""
        updates, reached = int(self.updates), bool(self.stopped)
        seen = self.tracks[: updates + 1] if len(self.tracks) else self._scene.handles[None]
        return Optimum(
            self.variable.clone(),
            self._prepared.variable if self._origin is None else self._origin.variable,
            self._prepared.constants,
            self.losses[:updates].clone(),
            seen.clone(),
            _copy(self._reference) if self._begun and self._reference is not None else None,
            reached,
        )

    def _iterate(self, look: Callable[[Forward], None]) -> None:
        method, scene = self._method, self._scene
        leaf = (self.variable if self._rounded is None else self._rounded).detach().requires_grad_()
        with torch.enable_grad():
            seen = method.features(scene, self._prepared.constants, leaf)
        look(seen.detach())
        self.tracks.index_copy_(0, self._number[None], self.state.handles[None])
        self.stopped |= method.finished(scene, self.state)
        assert self._reference is not None
        with torch.enable_grad():
            loss = method.supervise(scene, self._reference, seen, self.state)
        self.losses.index_copy_(0, self._number[None], loss.detach().float()[None])
        self._number += 1
        gradient = method.gradient(loss, leaf)
        moments = self._first, self._second
        adam_step(
            self.variable,
            gradient,
            *moments,
            self._rounded,
            self._number,
            self.stopped,
            scene.config.lr,
        )
        self.updates += ~self.stopped

    def _begin(self, seen: Forward) -> None:
        self.seen, origin = seen, self._origin
        known = None if origin is None else origin.reference
        self._reference = _written(self._reference, seen if known is None else known)
        state = self._method.begin(self._scene, self._reference)
        if origin is not None and origin.handles is not None:
            state = dataclasses.replace(state, handles=origin.handles)
        if known is not None:
            state = self._method.follow(self._scene, known, seen, state)
        # `begin` of a graph's buffers would move them: the first drag makes them, later ones write into them.
        self.state = _written(getattr(self, "state", None), state)

    def _follow(self, seen: Forward) -> None:
        assert self._reference is not None
        self.seen = seen
        self.state = _written(
            self.state, self._method.follow(self._scene, self._reference, seen, self.state)
        )


def _copy(values: S) -> S:
    """In memory of its own."""
    found = {name: value.clone() for name, value in vars(values).items() if value is not None}
    return dataclasses.replace(values, **found)


def _written(buffers: S | None, values: S) -> S:
    """`values`, written into `buffers`; in new ones where there are none."""
    if buffers is None:
        return _copy(values)
    for name, value in vars(values).items():
        if value is not None:
            getattr(buffers, name).copy_(value)
    return buffers

"""The drag's loop: features under the handles move to the targets, one iteration at a time.

The first forward pass, on the unchanged variable, is both the reference and iteration 0: the two
are the same bits, as the methods need (sign(0) = 0 in the mask term, where a difference of rounding
would decide the first update). Only a drag that goes on from an earlier one brings its reference
along.

An iteration works on buffers that stay where they are. Unless its method reads values on the host,
it is captured as one graph on CUDA and replayed, by every drag that is like it, on whatever picture
(`LoopCache`): what a drag brings along is copied into the buffers.
"""

import dataclasses
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from dragnoise.kernels.adam import adam_step

from ..system.cuda_graphs import Graph, LateFlag, NullGraph, graph_on
from .buffers import Buffers
from .method import AnyMethod, Forward, Start, State, WarmStart
from .scene import Scene

__all__ = ["DragLoop", "Iteration", "LoopCache", "Optimum"]

T = TypeVar("T", State, Forward)
F = TypeVar("F", bound=Forward)


@dataclass(frozen=True, eq=False)
class Iteration(Generic[F]):
    """One iteration of a drag, as `on_iteration` is shown it.

    Reading a tensor's value waits for the device. The next iteration, or the next drag, overwrites
    them all.

    Attributes:
        number: From 0.
        handles: [N, 2], (row, column) in the supervision map, int64 or float32.
        loss: float32 [].
        forward: The forward pass.
        variable: What is optimised; it has been updated since the pass.
    """

    number: int
    handles: Tensor
    loss: Tensor
    forward: F
    variable: Tensor

    @property
    def seen(self) -> F:
        """Call it `forward`, its new name."""
        warnings.warn("Iteration.seen is now called forward", DeprecationWarning, stacklevel=2)
        return self.forward


@dataclass(frozen=True, eq=False)
class Optimum:
    """The end of a drag.

    Attributes:
        variable: float32, at the stop, or after the last update.
        start: The variable's first value.
        constants: The method's own.
        losses: float32 [updates].
        handles: [iterations, N, 2], (row, column) after the tracking of each iteration, int64 or
            float32.
        reference: What the drag was compared with; None if there was no iteration.
        reached: Whether every handle is where it should be.
    """

    variable: Tensor
    start: Tensor
    constants: Any
    losses: Tensor
    handles: Tensor
    reference: Any
    reached: bool


class LoopCache:
    """The buffers and the graphs of the last drags, lent to the next one that is like one of them.

    Alike are drags with the same settings and number of handles, at places and from starts that
    differ in their numbers alone. Without graphs there is nothing to keep. Not for two threads.
    """

    KINDS = 2
    """How many loops are kept: a graph holds all that lies between its operators."""

    def __init__(self) -> None:
        self._loops: list[DragLoop] = []

    @contextmanager
    def lent(
        self,
        method: AnyMethod,
        scene: Scene[Any, Any],
        start: Start[Any],
        dtype: torch.dtype,
        poll_every: int = 1,
        warm: WarmStart | None = None,
    ) -> Iterator["DragLoop"]:
        """Lend a loop that is ready for its first iteration; one that fails does not come back.

        Args:
            method: As for `DragLoop`.
            scene: As for `DragLoop`.
            start: As for `DragLoop`.
            dtype: As for `DragLoop`.
            poll_every: As for `DragLoop.begin`.
            warm: As for `DragLoop.begin`.
        """
        like = next((loop for loop in self._loops if loop.matches(method, scene, start)), None)
        if like is not None:
            self._loops.remove(like)  # a drag within this one must not write into it
        else:
            self._free(self.KINDS - 1)
        loop = like or DragLoop(method, scene, start, dtype)
        yield loop.begin(scene, start, poll_every, warm)
        if loop.is_captured:
            loop.rest()
            self._loops.append(loop)
            self._free(self.KINDS)

    def clear(self) -> None:
        """Free all buffers and graphs."""
        self._free(0)

    def _free(self, most: int) -> None:
        """Free the loops that were lent longest ago, so that as many are left."""
        del self._loops[: max(len(self._loops) - most, 0)]


class DragLoop:
    """A drag that is iterated: `begin` it, take its iterations, ask for its `optimum`.

    It ends when every handle has arrived or `settings.iterations` updates are done. The stop
    condition lives on the device and freezes everything once it holds; it is read every
    `poll_every` iterations, which changes the time that passes, never the result. A method that
    reads values on the host anyway is stopped at once.

    Args:
        method: Whose functions are run.
        scene: What is dragged.
        start: What `method.start` gave at the scene's place.
        dtype: What the method reads the variable in.
    """

    _forward: Forward
    _state: State
    _start: Start[Any] | None
    _warm: WarmStart | None

    def __init__(
        self, method: AnyMethod, scene: Scene[Any, Any], start: Start[Any], dtype: torch.dtype
    ) -> None:
        iterations = scene.settings.iterations
        variable = start.variable
        device = variable.device
        self._method = method
        self._capture = graph_on(device) if method.captured else NullGraph
        self._buffers = Buffers(scene.place, start) if self.is_captured else None
        self._constants = (start if self._buffers is None else self._buffers.start).constants
        self._scene = dataclasses.replace(
            scene,
            place=scene.place if self._buffers is None else self._buffers.place,
            handles=scene.handles.clone(),
            targets=scene.targets.clone(),
            keep=None if scene.keep is None else scene.keep.clone(),
            grip=None if scene.grip is None else scene.grip.clone(),
        )
        self._variable = torch.zeros_like(variable)
        self._first_moment = torch.zeros_like(variable)
        self._second_moment = torch.zeros_like(variable)
        # A method that reads low precision reads this: Adam writes it beside the variable.
        self._rounded = None if dtype == torch.float32 else variable.to(dtype)
        self._losses = torch.zeros(iterations, dtype=torch.float32, device=device)
        self._tracks: Tensor | None = None
        self._stopped = torch.zeros((), dtype=torch.bool, device=device)
        self._updates = torch.zeros((), dtype=torch.int64, device=device)
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._reference: Forward | None = None
        self._graphs: dict[object, Graph] = {}
        self._forwards: dict[object, Forward] = {}
        self._ran_in = WeakSet[threading.Thread]()

    @property
    def is_captured(self) -> bool:
        """Whether its iterations are replayed, so that it is worth to be kept."""
        return self._capture is not NullGraph

    def matches(self, method: AnyMethod, scene: Scene[Any, Any], start: Start[Any]) -> bool:
        """Whether that drag differs from this one only in what `begin` writes."""
        own = self._scene
        return (
            method is self._method
            and self._buffers is not None
            and scene.resolution == own.resolution
            and scene.settings == own.settings
            and scene.handles.shape == own.handles.shape
            and (scene.keep is None) == (own.keep is None)
            and (scene.grip is None) == (own.grip is None)
            and scene.wants_output == own.wants_output
            and self._buffers.fit(scene.place, start)
        )

    def begin(
        self,
        scene: Scene[Any, Any],
        start: Start[Any],
        poll_every: int = 1,
        warm: WarmStart | None = None,
    ) -> Self:
        """Make everything as it is before the first iteration of that drag.

        Args:
            scene: The one that the loop was made for, or one that `matches`.
            start: Its start.
            poll_every: Iterations between two reads of the stop condition.
            warm: Where the drag begins; None: at the method's own start.
        """
        own = self._scene
        self._start = start
        if self._buffers is not None:
            self._buffers.write(scene.place, start)
        own.handles.copy_(scene.handles)
        own.targets.copy_(scene.targets)
        if own.keep is not None and scene.keep is not None:
            own.keep.copy_(scene.keep)
        if own.grip is not None and scene.grip is not None:
            own.grip.copy_(scene.grip)
        self._warm = warm
        if warm is not None and warm.reference is not None:
            self._reference = _written(self._reference, warm.reference)
        self._variable.copy_(start.variable if warm is None else warm.variable)
        if self._rounded is not None:
            self._rounded.copy_(self._variable)
        for buffer in (
            self._first_moment,
            self._second_moment,
            self._losses,
            self._stopped,
            self._updates,
            self._number,
        ):
            buffer.zero_()
        self._done = 0
        self._ended = False
        self._poll_every = poll_every if self._method.captured else 1
        self._poll = LateFlag(self._variable.device).ask if self._method.captured else bool
        return self

    def __iter__(self) -> Iterator[Iteration[Any]]:
        return self

    def __next__(self) -> Iteration[Any]:
        if not self._ended:
            self._ended = self._reads_stop() or self._done == self._scene.settings.iterations
        if self._ended:
            raise StopIteration
        number = self._done
        self.step()
        self._done += 1
        assert self._tracks is not None
        return Iteration(
            number, self._tracks[number], self._losses[number], self._forward, self._variable
        )

    def step(self) -> None:
        """Make one iteration.

        The first one of all makes the buffers, the first one of a thread its libraries' plans, and
        one whose handles were elsewhere has them from the host: they run as they are. All others
        are replayed.
        """
        warm = self._warm
        thread = threading.current_thread()
        if self._done:
            self._replay("later", self._look)
        elif thread not in self._ran_in or (warm is not None and warm.handles is not None):
            self._forward = self._iterate(self._look_first)
            self._ran_in.add(thread)
        else:
            self._replay(("first", self._is_known), self._look_first)

    @property
    def _is_known(self) -> bool:
        """Whether the drag brings its reference along: `begin` has written it then."""
        return self._warm is not None and self._warm.reference is not None

    def _replay(self, kind: object, look: Callable[[Forward], None]) -> None:
        """Replay an iteration of a kind; the first of a kind is captured."""

        def work() -> None:
            self._forwards[kind] = self._iterate(look)

        if kind not in self._graphs:
            self._graphs[kind] = self._capture(work)
        self._graphs[kind]()
        self._forward = self._forwards[kind]  # a replayed graph writes where it was captured

    def optimum(self) -> Optimum:
        """Return a copy of where the loop is: the next drag may use the buffers."""
        assert self._start is not None
        updates = int(self._updates)
        reached = bool(self._stopped)
        track = self._scene.handles[None]
        if self._tracks is not None and self._done:
            track = self._tracks[: updates + 1]
        return Optimum(
            variable=self._variable.clone(),
            start=self._start.variable if self._warm is None else self._warm.variable,
            constants=self._start.constants,
            losses=self._losses[:updates].clone(),
            handles=track.clone(),
            reference=None if self._reference is None or not self._done else _copy(self._reference),
            reached=reached,
        )

    def rest(self) -> None:
        """Let go of what the drag has brought along."""
        self._start = self._warm = None

    def _reads_stop(self) -> bool:
        """Whether the stop condition holds, as far as it is read after the last iteration."""
        last = self._done - 1
        return last >= 0 and last % self._poll_every == 0 and self._poll(self._stopped)

    def _iterate(self, look: Callable[[Forward], None]) -> Forward:
        method = self._method
        scene = self._scene
        read = self._variable if self._rounded is None else self._rounded
        leaf = read.detach().requires_grad_()
        with torch.enable_grad():
            forward = method.features(scene, self._constants, leaf)
        seen: Forward = forward.detach()
        look(seen)
        assert self._tracks is not None
        self._tracks.index_copy_(0, self._number[None], self._state.handles[None])
        self._stopped |= method.finished(scene, self._state)
        with torch.enable_grad():
            loss = method.supervise(scene, self._reference, forward, self._state)
        self._losses.index_copy_(0, self._number[None], loss.detach().float()[None])
        self._number += 1
        gradient = method.gradient(loss, leaf)
        adam_step(
            self._variable,
            gradient,
            self._first_moment,
            self._second_moment,
            self._rounded,
            self._number,
            self._stopped,
            scene.settings.lr,
        )
        self._updates += ~self._stopped
        return seen

    def _look_first(self, forward: Forward) -> None:
        warm = self._warm
        if not self._is_known:
            self._reference = _written(self._reference, forward)
        state = self._method.begin(self._scene, self._reference)
        if warm is not None and warm.handles is not None:
            state = dataclasses.replace(state, handles=warm.handles.to(state.handles.dtype))
        if self._is_known:
            state = self._method.follow(self._scene, self._reference, forward, state)
        # `begin` would move a graph's buffers: the first drag makes them, later ones write there.
        self._state = _written(getattr(self, "_state", None), state)
        if self._tracks is None:
            count = self._scene.settings.iterations
            self._tracks = state.handles.new_zeros(count, *state.handles.shape)

    def _look(self, forward: Forward) -> None:
        state = self._method.follow(self._scene, self._reference, forward, self._state)
        self._state = _written(self._state, state)


def _copy(values: T) -> T:
    """Return the same values in memory of their own."""
    tensors = {name: value.clone() for name, value in vars(values).items() if value is not None}
    return dataclasses.replace(values, **tensors)


def _written(buffers: T | None, values: T) -> T:
    """Write `values` into `buffers`, in new ones where there are none."""
    if buffers is None:
        return _copy(values)
    for name, value in vars(values).items():
        if value is not None:
            getattr(buffers, name).copy_(value)
    return buffers

"""How work is handed to a device: as a captured graph that is replayed, and a flag that is read late.

On CUDA a turn of a loop is hundreds of small kernels; launched one by one they cost more than they compute. A graph is launched as one. Captured code
may not wait for the device nor read a host value that changes: everything that changes lies in buffers that stay where they are. On a CPU the same
code runs with a graph that captures nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Captured", "CudaGraph", "Graph", "LateFlag", "NullGraph", "graph_on"]


class Graph(Protocol):
    """Work on a device, to be done again: made of a function without arguments that reads and writes buffers."""

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class NullGraph:
    """Nothing is captured: the function is called."""

    work: Callable[[], None]

    def __call__(self) -> None:
        self.work()


class CudaGraph:
    """A `torch.cuda.CUDAGraph` of one call of `work`, which must have run before (its libraries' workspaces and kernels are then there)."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            work()

    def __call__(self) -> None:
        self._graph.replay()


def graph_on(device: torch.device) -> Callable[[Callable[[], None]], Graph]:
    """What captures on that device."""
    return CudaGraph if device.type == "cuda" else NullGraph


@dataclass
class _Entry:
    inputs: tuple[Tensor, ...]
    output: Tensor
    graph: Graph | None = None


class Captured:
    """A function of tensors to one tensor, captured once for every set of shapes, dtypes and strides and replayed.

    The first call of a kind runs as it is, the second is captured. Inputs are copied into buffers of the graph's own and the result is copied out of
    it: it belongs to the caller. The last `KINDS` kinds are kept. Not for two threads at once.
    """

    KINDS = 4

    def __init__(
        self, function: Callable[..., Tensor], capture: Callable[[Callable[[], None]], Graph]
    ) -> None:
        self._function = function
        self._capture = capture
        self._entries: dict[tuple[object, ...], _Entry] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        key = tuple((given.shape, given.dtype, given.stride()) for given in inputs)
        entry = self._entries.get(key)
        if entry is None:
            output = self._function(*inputs)
            while len(self._entries) >= self.KINDS:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = _Entry(tuple(given.clone() for given in inputs), output.clone())
            return output
        self._entries[key] = self._entries.pop(key)  # the last one used stands last
        for buffer, given in zip(entry.inputs, inputs, strict=True):
            buffer.copy_(given)
        if entry.graph is None:

            def work() -> None:
                entry.output.copy_(self._function(*entry.inputs))

            entry.graph = self._capture(work)
        entry.graph()
        return entry.output.clone()


class LateFlag:
    """A flag on a device, read by the host without ever stopping the device: on CUDA an answer is the one asked for the time before."""

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._host = torch.zeros((), dtype=torch.bool, pin_memory=self._late)
        self._asked: torch.cuda.Event | None = None

    def ask(self, flag: Tensor) -> bool:
        """The flag bool [] now (CPU), or as it was when asked last (CUDA; False the first time), by when later work has long been queued."""
        if not self._late:
            return bool(flag)
        answer = False
        if self._asked is not None:
            self._asked.synchronize()
            answer = bool(self._host)
        self._host.copy_(flag, non_blocking=True)
        self._asked = torch.cuda.Event()
        self._asked.record()
        return answer

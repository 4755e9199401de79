"""Work handed to a device: as a captured graph that is replayed, and as a flag that is read late.

On CUDA an iteration of a loop is hundreds of small kernels; launched one by one they cost more than
they compute. A graph is launched as one. Captured code may not wait for the device nor read a host
value that changes: everything that changes lies in buffers that stay where they are. On a CPU the
same code runs with a graph that captures nothing.

What is captured must have run before, in the same thread: libraries load their kernels then, and
PyTorch keeps cuDNN's plans by thread (pytorch/pytorch#103939), which nobody can make meanwhile.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

__all__ = ["Captured", "CudaGraph", "Graph", "LateFlag", "NullGraph", "graph_on", "is_capturing"]


class Graph(Protocol):
    """Work on a device that can be done again.

    It is made of a function without arguments that reads and writes buffers.
    """

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class NullGraph:
    """A graph that captures nothing: the function is called."""

    work: Callable[[], None]

    def __call__(self) -> None:
        self.work()


class CudaGraph:
    """A `torch.cuda.CUDAGraph` of one call of `work`, which must have run before in this thread."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with _alone(), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            work()

    def __call__(self) -> None:
        self._graph.replay()


_CAPTURING = threading.Lock()


@contextmanager
def _alone() -> Iterator[None]:
    """Let no other thread capture, nor garbage be collected, and keep the thread's stream.

    All captures are made on one stream of PyTorch's. A graph that is collected meanwhile is
    destroyed, which ends the capture with an error (pytorch/pytorch#161037).
    """
    with _CAPTURING, torch.cuda.stream(torch.cuda.current_stream()):
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


def graph_on(device: torch.device) -> Callable[[Callable[[], None]], Graph]:
    """Return the kind of graph that captures on that device."""
    return CudaGraph if device.type == "cuda" else NullGraph


@dataclass
class _Entry:
    inputs: tuple[Any, ...]
    outputs: Any
    ran_in: "WeakSet[threading.Thread]" = field(default_factory=WeakSet)
    graph: Graph | None = None


class Captured:
    """A function of tensors, or tuples of them, that is captured and replayed.

    It is captured once for every set of shapes, dtypes and strides, and of inputs that are no
    tensors: in every thread the first call of a kind runs as it is, the next is captured or, where
    another thread has done that, replayed. Inputs are copied into buffers of the graph's own and
    the results are copied out of it, so that they belong to the caller and always lie in the same
    way. The last `KINDS` kinds are kept. While another graph is captured, the function is called as
    it is and becomes a part of that one. Not for two threads at once.
    """

    KINDS = 4

    def __init__(
        self, function: Callable[..., Any], capture: Callable[[Callable[[], None]], Graph]
    ) -> None:
        self._function = function
        self._capture = capture
        self._entries: dict[object, _Entry] = {}

    def __call__(self, *inputs: Any) -> Any:
        if is_capturing():
            return self._function(*inputs)
        key = _kind(inputs)
        entry = self._entries.pop(key, None)
        thread = threading.current_thread()
        if entry is None or thread not in entry.ran_in:
            result = self._function(*inputs)
            entry = self._put(key, entry or _Entry(_cloned(inputs), _cloned(result)))
            entry.ran_in.add(thread)
            return _cloned(result)
        self._put(key, entry)
        _write(entry.inputs, inputs)
        if entry.graph is None:
            entry.graph = self._captured(entry)
        entry.graph()
        return _cloned(entry.outputs)

    def _put(self, key: object, entry: _Entry) -> _Entry:
        """Keep a kind as the last one used."""
        while len(self._entries) >= self.KINDS:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = entry
        return entry

    def _captured(self, entry: _Entry) -> Graph:
        def work() -> None:
            _write(entry.outputs, self._function(*entry.inputs))

        return self._capture(work)


def is_capturing() -> bool:
    """Whether this thread's work on CUDA is being captured, not done."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _kind(given: Any) -> object:
    """Return what a captured graph depends on of an input, or of a tuple of them."""
    if isinstance(given, Tensor):
        return given.shape, given.dtype, given.stride()
    return tuple(_kind(each) for each in given) if isinstance(given, tuple) else given


def _cloned(given: Any) -> Any:
    """Return tensors, or tuples of them, in memory of their own."""
    if isinstance(given, Tensor):
        return given.clone()
    return tuple(_cloned(each) for each in given) if isinstance(given, tuple) else given


def _write(buffers: Any, given: Any) -> None:
    """Write tensors, or tuples of them, into buffers of their kind."""
    if isinstance(given, Tensor):
        buffers.copy_(given)
    elif isinstance(given, tuple):
        for buffer, each in zip(buffers, given, strict=True):
            _write(buffer, each)


class LateFlag:
    """A device flag that the host reads one poll late, so that neither waits for the other."""

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._host = torch.zeros((), dtype=torch.bool, pin_memory=self._late)
        self._copied: torch.cuda.Event | None = None

    def ask(self, flag: Tensor) -> bool:
        """Return the flag, bool []: its value now on a CPU, at the last call on CUDA.

        On CUDA the first answer is False. By the next call later work has long been queued.
        """
        if not self._late:
            return bool(flag)
        answer = False
        if self._copied is not None:
            self._copied.synchronize()
            answer = bool(self._host)
        self._host.copy_(flag, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()
        return answer

"""Work that is captured and replayed, and a flag that is read late, as a CPU can show it."""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from dragnoise.engine.cache.structure import flatten, kinds_of
from dragnoise.engine.system import cuda_graphs
from dragnoise.engine.system.cuda_graphs import Captured, CudaGraph, LateFlag, NullGraph, graph_on

CPU = torch.device("cpu")


def test_a_captured_function_owns_its_buffers() -> None:
    captured = Captured(lambda one, other: one * 2 + other, NullGraph)
    results = []
    for k in range(4):
        one = torch.full((2, 3), float(k))
        results.append((k, captured(one, torch.ones(2, 3))))
        one.fill_(99)
    assert all(torch.equal(found, torch.full((2, 3), 2.0 * k + 1)) for k, found in results)
    wide = captured(torch.ones(5), torch.ones(5))
    assert torch.equal(wide, torch.full((5,), 3.0))


def test_tuples_go_in_and_come_out() -> None:
    """As the decoder half takes its skips, and returns None for features that nobody wants."""

    def up(first: Tensor, skips: tuple[Tensor, ...], block: int | None) -> tuple[Any, Tensor]:
        return None if block is None else first * block, first + sum(skips)

    captures: list[Callable[[], None]] = []

    def capture(work: Callable[[], None]) -> NullGraph:
        captures.append(work)
        return NullGraph(work)

    captured = Captured(up, capture)
    for k in range(3):
        first, skips = torch.full((2,), float(k)), (torch.ones(2), torch.full((2,), 2.0 * k))
        features, output = captured(first, skips, None)
        assert features is None
        assert output.tolist() == [3 * k + 1] * 2
        features, _ = captured(first, skips, 3)
        assert features.tolist() == [3 * k] * 2
    assert len(captures) == 2


def test_the_last_kinds_of_inputs_are_kept() -> None:
    captures: list[Callable[[], None]] = []

    def capture(work: Callable[[], None]) -> NullGraph:
        captures.append(work)
        return NullGraph(work)

    captured = Captured(lambda one: one * 2, capture)

    def captures_of(size: int, calls: int = 2) -> int:
        """Return how many calls of a kind are captured."""
        before = len(captures)
        for _ in range(calls):
            assert torch.equal(captured(torch.ones(size)), torch.full((size,), 2.0))
        return len(captures) - before

    assert [captures_of(size) for size in range(1, Captured.KINDS + 1)] == [1] * Captured.KINDS
    assert captures_of(1) == 0  # kept, and the last one used now
    assert captures_of(Captured.KINDS + 1) == 1  # in the place of the second
    assert captures_of(1) == 0
    assert captures_of(2) == 1


def test_in_every_thread_the_first_call_runs_as_it_is() -> None:
    """cuDNN's plans are a thread's own, and cannot be made while a graph is captured."""
    seen: list[str] = []

    class Recorded(NullGraph):
        def __init__(self, work: Callable[[], None]) -> None:
            seen.append("captured")
            super().__init__(work)

        def __call__(self) -> None:
            seen.append("replayed")
            super().__call__()

    captured = Captured(lambda one: one * 2, Recorded)

    def call(number: float) -> None:
        one = torch.full((3,), number, dtype=torch.float32)
        assert captured(one).tolist() == [2 * number] * 3

    def called_here(times: int) -> list[str]:
        seen.clear()
        for number in range(times):
            call(number)
        return list(seen)

    def called_elsewhere(times: int) -> list[str]:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(called_here, times).result()

    assert called_here(1) == []
    assert called_elsewhere(1) == []
    assert called_elsewhere(2) == ["captured", "replayed"]
    assert called_here(2) == ["replayed"] * 2
    assert called_elsewhere(3) == ["replayed"] * 2


def test_results_lie_in_the_same_way_replayed_or_not() -> None:
    def twice(one: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.cat([one, one], 1)
        return wide, wide, wide[:, 1:3]

    captured = Captured(twice, NullGraph)
    one = torch.arange(12, dtype=torch.float32).reshape(2, 2, 3)
    results = [captured(one) for _ in range(3)]
    layouts, _ = zip(*(flatten(result, kinds_of()) for result in results), strict=True)
    assert layouts[0] == layouts[1] == layouts[2]


class _Cuda:
    """What a capture calls of torch.cuda, on a machine without."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.collecting: list[bool] = []
        for name in ("CUDAGraph", "synchronize", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: None)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    @contextmanager
    def graph(self, graph: object, capture_error_mode: str) -> Iterator[None]:
        self.collecting.append(gc.isenabled())
        yield


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_a_graph_is_captured(
    monkeypatch: pytest.MonkeyPatch, collects: bool
) -> None:
    cuda = _Cuda(monkeypatch)

    def fail() -> None:
        raise RuntimeError("no memory")

    try:
        if not collects:
            gc.disable()
        CudaGraph(lambda: None)
        assert gc.isenabled() is collects
        with pytest.raises(RuntimeError, match="no memory"):
            CudaGraph(fail)
        assert gc.isenabled() is collects
        assert cuda.collecting == [False, False]
    finally:
        gc.enable()


def test_one_graph_is_captured_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch captures all on one stream."""
    _Cuda(monkeypatch)
    inside = threading.Barrier(2)

    def meet() -> None:
        with pytest.raises(threading.BrokenBarrierError):
            inside.wait(0.2)

    with ThreadPoolExecutor(2) as threads:
        for waited in [threads.submit(CudaGraph, meet) for _ in range(2)]:
            waited.result()


def test_a_flag_on_the_cpu_is_read_at_once() -> None:
    flag = LateFlag(CPU)
    assert not flag.ask(torch.tensor(False))
    assert flag.ask(torch.tensor(True))
    assert graph_on(CPU) is NullGraph
    assert graph_on(torch.device("cuda")) is CudaGraph


@pytest.mark.gpu
def test_a_flag_on_cuda_is_the_one_asked_for_before() -> None:
    flag = LateFlag(torch.device("cuda"))
    assert not flag.ask(torch.tensor(True, device="cuda"))
    assert flag.ask(torch.tensor(False, device="cuda"))
    assert not flag.ask(torch.tensor(False, device="cuda"))


@pytest.mark.gpu
def test_captured_on_cuda() -> None:
    captured = Captured(lambda one, other: one * 2 + other, CudaGraph)
    for k in range(4):
        found = captured(
            torch.full((2, 3), float(k), device="cuda"), torch.ones(2, 3, device="cuda")
        )
        assert torch.equal(found, torch.full((2, 3), 2.0 * k + 1, device="cuda"))


@pytest.mark.gpu
def test_on_cuda_a_graph_that_is_garbage_ends_no_capture() -> None:
    """As it did in pytorch/pytorch#161037."""

    class Itself:
        def __init__(self, graph: CudaGraph) -> None:
            self.graph = graph
            self.itself = self

    ones = torch.ones(3, device="cuda", dtype=torch.float32)

    def add(times: int) -> None:
        for _ in range(times):
            ones.add_(1)

    add(1)
    threshold = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        Itself(CudaGraph(lambda: add(1)))
        gc.enable()
        gc.set_threshold(1, 1, 1)
        graph = CudaGraph(lambda: add(20))
    finally:
        gc.enable()
        gc.set_threshold(*threshold)
    graph()
    assert ones.tolist() == [22.0] * 3


@pytest.mark.gpu
def test_on_cuda_a_convolution_is_captured_in_another_thread() -> None:
    weight = torch.randn(16, 16, 3, 3, device="cuda", dtype=torch.float16)
    captured = Captured(lambda one: torch.conv2d(one, weight, padding=1), CudaGraph)
    one = torch.randn(1, 16, 40, 40, device="cuda", dtype=torch.float16)
    first = captured(one)
    with ThreadPoolExecutor(1) as thread:
        for _ in range(3):
            found = thread.submit(captured, one).result()
            torch.testing.assert_close(found, first, rtol=1e-2, atol=1e-2)


def test_inside_another_capture_it_is_a_part_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph cannot be replayed while another is captured: the function itself is called."""
    captures = []

    def capture(work: Callable[[], None]) -> NullGraph:
        captures.append(work)
        return NullGraph(work)

    captured = Captured(lambda one: one * 2, capture)
    ones = torch.ones(3, dtype=torch.float32)
    with monkeypatch.context() as inside:
        inside.setattr(cuda_graphs, "is_capturing", lambda: True)
        assert [captured(ones).tolist() for _ in range(3)] == [[2, 2, 2]] * 3
    assert (captures, captured._entries) == ([], {})
    assert captured(ones).tolist() == captured(ones).tolist() == [2, 2, 2]
    assert len(captures) == 1
    assert not cuda_graphs.is_capturing()

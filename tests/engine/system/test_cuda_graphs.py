"""Work that is captured and replayed, and a flag that is read late, as a CPU can show it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

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

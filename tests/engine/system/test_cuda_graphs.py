"""Work that is captured and replayed, and a flag that is read late, as far as a CPU can show it."""

import pytest
import torch

from dragnoise.engine.system.cuda_graphs import Captured, CudaGraph, LateFlag, NullGraph, graph_on

CPU = torch.device("cpu")


def test_a_captured_function_owns_its_buffers() -> None:
    captured = Captured(lambda one, other: one * 2 + other, NullGraph)
    results = []
    for k in range(4):
        one, other = torch.full((2, 3), float(k)), torch.ones(2, 3)
        results.append((k, captured(one, other)))
        one.fill_(99)
    assert all(torch.equal(found, torch.full((2, 3), 2.0 * k + 1)) for k, found in results)
    wide = captured(torch.ones(5), torch.ones(5))
    assert torch.equal(wide, torch.full((5,), 3.0))
    first = next(iter(captured._entries))
    for size in range(6, 6 + Captured.KINDS - 2):
        captured(torch.ones(size), torch.ones(size))
    assert len(captured._entries) == Captured.KINDS
    captured(torch.ones(2, 3), torch.ones(2, 3))
    captured(torch.ones(50), torch.ones(50))
    assert len(captured._entries) == Captured.KINDS
    assert first in captured._entries, "the kind that was used last is kept"


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

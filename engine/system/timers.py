"""What watches stages: timers. An observer is entered with a stage's name around every stage that really runs; around the drag, which gives way after
every iteration, once an iteration."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

__all__ = ["Observer", "StageTimes", "nvtx"]

Observer = Callable[[str], AbstractContextManager[None]]


@contextmanager
def nvtx(stage: str) -> Iterator[None]:
    """An observer that names every stage in NVIDIA's profilers."""
    torch.cuda.nvtx.range_push(f"dragnoise {stage}")
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()


class StageTimes:
    """Milliseconds by stage, in the order they ran; a stage that ran twice is summed.

    On a CUDA device two events are recorded around each stage and read only when `ms` is asked for, so that timing costs no synchronisation.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Callable[[], float]]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self._device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._spans.append((stage, lambda: _between(begin, end)))
        else:
            started = time.perf_counter()
            yield
            took_ms = (time.perf_counter() - started) * 1e3
            self._spans.append((stage, lambda: took_ms))

    @property
    def ms(self) -> dict[str, float]:
        """Stage name -> milliseconds."""
        total: dict[str, float] = {}
        for stage, read in self._spans:
            total[stage] = total.get(stage, 0.0) + read()
        return total


def _between(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    end.synchronize()
    return float(begin.elapsed_time(end))

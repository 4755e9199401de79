"""Observers of stages: timers, and names for profilers.

An observer is entered with a stage's name around every stage that really runs; around the drag,
which yields after every iteration, once for each iteration.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import torch

__all__ = ["Observer", "StageTimes", "nvtx", "rounded"]

Observer: TypeAlias = Callable[[str], AbstractContextManager[None]]
"""Called with a stage's name; what it returns is entered around the stage."""


@contextmanager
def nvtx(stage: str) -> Iterator[None]:
    """Name every stage in NVIDIA's profilers; an observer."""
    torch.cuda.nvtx.range_push(f"dragnoise {stage}")
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()


def rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    """Return times in milliseconds, rounded to microseconds."""
    return {stage: round(ms, 3) for stage, ms in timings_ms.items()}


class StageTimes:
    """An observer that sums milliseconds by stage, in the order in which stages ran.

    On a CUDA device two events are recorded around each stage and read only when `ms` is read, so
    that timing costs no synchronisation.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Callable[[], float]]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self._device.type == "cuda":
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
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
        """Milliseconds by the stage's name; a stage that ran twice is summed."""
        total: dict[str, float] = {}
        for stage, read in self._spans:
            total[stage] = total.get(stage, 0.0) + read()
        return total


def _between(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    """Return the milliseconds between two events."""
    end.synchronize()
    return float(begin.elapsed_time(end))

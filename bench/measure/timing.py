"""How things are timed: warmed up, alternately, as medians with their quantiles, and as ratios within one run.

Machines are shared and their clocks change, so two figures compare only where they were taken side by side: every round runs each contender once, in
the same order, and a ratio is the median of the rounds' own ratios.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dragnoise.export.peak_memory import forget_peak, peak_of_process

__all__ = ["Spread", "alternating", "clock_ms", "cold", "peak_bytes", "ratio", "reset_peak"]


@dataclass(frozen=True)
class Spread:
    """Median and quantiles of so many values."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """low and high are the first and the ninth decile, as far as so few values have any."""
        if not values:
            raise ValueError("nothing was measured")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        return cls(statistics.median(values), deciles[0], deciles[-1], len(values))

    def to_dict(self, digits: int = 4) -> dict[str, float]:
        return {name: float(f"{value:.{digits}g}") for name, value in asdict(self).items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times faster, round by round."""
    return Spread.of([one / other for one, other in zip(slow, fast, strict=True)])


def clock_ms(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, until the device has done it."""
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def alternating(
    contenders: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    *,
    warm_up: int = 2,
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of every contender in every round, after `warm_up` rounds that do not count. before: done before each call, outside its time."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, run in contenders.items():
            if before is not None:
                before()
            took = clock_ms(run, device)
            if number >= warm_up:
                found[name].append(took)
    return found


def cold(device: torch.device, size_bytes: int = 2**28) -> Callable[[], object]:
    """What empties caches: 256 MiB, more than the last level of any device that we know, written anew."""
    ballast = torch.zeros(size_bytes // 4, device=device)
    return lambda: ballast.add_(1)


def reset_peak(device: torch.device) -> None:
    """The peak of memory is counted from here, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    forget_peak()


def peak_bytes(device: torch.device) -> dict[str, Any]:
    """The most memory in use since `reset_peak`: of the device, and of the process (None where the system does not say)."""
    found: dict[str, Any] = {"process": peak_of_process()}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found

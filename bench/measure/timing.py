"""Time contenders: warmed up, alternately, as medians with quantiles, and as ratios in one run.

Machines are shared and their clocks change, so two figures compare only where they were taken side
by side: every round runs each contender once, in the same order, and a ratio is the median of the
rounds' own ratios.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from dragnoise.export.peak_memory import forget_peak, peak_of_process

__all__ = ["Spread", "alternating", "clock_ms", "cold", "peak_bytes", "ratio", "reset_peak"]


@dataclass(frozen=True)
class Spread:
    """A median with quantiles.

    Attributes:
        median: The median of the values.
        low: Their first decile, as far as few values have one.
        high: Their ninth decile, likewise.
        count: How many values there were.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise values. Raises ValueError without any."""
        if not values:
            raise ValueError("nothing was measured")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        return cls(statistics.median(values), deciles[0], deciles[-1], len(values))

    def to_dict(self, digits: int = 4) -> dict[str, float]:
        """Return the figures with so many significant digits, as records hold them."""
        return {name: float(f"{value:.{digits}g}") for name, value in asdict(self).items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """Return how many times faster the second contender is, round by round."""
    return Spread.of([slower / faster for slower, faster in zip(slow, fast, strict=True)])


def clock_ms(run: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds of one call, until the device has done it."""
    if device.type == "cuda":
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
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
    """Time every contender once a round, in their order.

    Args:
        contenders: The calls by name.
        device: Where they run.
        rounds: How many rounds count.
        warm_up: How many rounds before them do not.
        before: Called before each call, outside its time.

    Returns:
        The milliseconds of every contender, a value for each round that counts.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, run in contenders.items():
            if before is not None:
                before()
            call_ms = clock_ms(run, device)
            if number >= warm_up:
                times[name].append(call_ms)
    return times


def cold(device: torch.device, size_bytes: int = 2**28) -> Callable[[], object]:
    """Return what empties caches: it rewrites `size_bytes`, more than any device's last level."""
    ballast = torch.zeros(size_bytes // 4, device=device)
    return lambda: ballast.add_(1)


def reset_peak(device: torch.device) -> None:
    """Count the peak of memory from now on, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    forget_peak()


def peak_bytes(device: torch.device) -> dict[str, int | None]:
    """Return the most bytes in use since `reset_peak`, by where.

    "process" is None where the system does not tell; "device" is there on CUDA only.
    """
    peaks: dict[str, int | None] = {"process": peak_of_process()}
    if device.type == "cuda":
        peaks["device"] = torch.cuda.max_memory_allocated(device)
    return peaks

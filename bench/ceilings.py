"""What devices can do at most, and the time that counted work takes at that speed: a forecast, not a measurement.

Every launch takes the longer of computing and moving its bytes (the roofline model, Williams et al. 2009); launches follow one another.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from .counts import Counts

__all__ = ["CEILINGS", "Ceiling", "Forecast", "forecast", "this_cpu"]


@dataclass(frozen=True)
class Ceiling:
    """flops_per_s: by the type that is computed in, dense, accumulated in float32; on a GPU float32 is TF32. source: of the figures."""

    name: str
    flops_per_s: Mapping[torch.dtype, float]
    bytes_per_s: float
    source: str


@dataclass(frozen=True)
class Forecast:
    """Milliseconds. fused_ms: every convolution, matrix product and attention; whatever else there is costs nothing, as if it were fused into these.
    dispatched_ms: every launch as it was counted."""

    fused_ms: float
    dispatched_ms: float


def forecast(counts: Counts, ceiling: Ceiling) -> Forecast:
    """The least time of that work on that device. Raises KeyError where FLOPs are of a type that the ceiling has no figure for."""
    fused = dispatched = 0.0
    for kernel, count in counts.kernels.items():
        computing = kernel.flops / ceiling.flops_per_s[kernel.dtype] if kernel.flops else 0.0
        took = count * max(computing, kernel.bytes / ceiling.bytes_per_s)
        dispatched += took
        fused += took if kernel.flops else 0.0
    return Forecast(fused * 1e3, dispatched * 1e3)


def _gpu(name: str, half: float, tf32: float, gigabytes: float, source: str) -> Ceiling:
    peaks = {torch.float16: half * 1e12, torch.bfloat16: half * 1e12, torch.float32: tf32 * 1e12}
    return Ceiling(name, peaks, gigabytes * 1e9, source)


CEILINGS: dict[str, Ceiling] = {
    row.name: row
    for row in (
        _gpu(
            "h100",
            800,
            400,
            3000,
            "what large products and copies are taken to reach on an H100 SXM; our targets' basis",
        ),
        _gpu("h100-vendor", 989.4, 494.7, 3350, "NVIDIA H100 datasheet, SXM, without sparsity"),
        _gpu(
            "rtx4090",
            165.2,
            82.6,
            1008,
            "NVIDIA Ada GPU architecture whitepaper, appendix A, float32 accumulation, dense",
        ),
    )
}


def this_cpu(dtype: torch.dtype = torch.float32) -> Ceiling:
    """Measured here and now with the threads that PyTorch has, in a second or so: the best of five products of 1024 x 1024 matrices in float32 and in
    `dtype`, and of five copies of 128 MiB (read and written)."""
    peaks = {}
    for kind in {torch.float32, dtype}:
        matrix = torch.ones(1024, 1024, dtype=kind)
        peaks[kind] = 2 * matrix.shape[0] ** 3 / _best_s(partial(torch.matmul, matrix, matrix))
    source = torch.ones(2**25)
    target = torch.zeros_like(source)
    moved = 2 * source.nbytes / _best_s(partial(target.copy_, source))
    return Ceiling(
        "this-cpu", peaks, moved, f"measured: PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    )


def _best_s(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best

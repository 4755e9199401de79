"""What devices can do at most, and the time that counted work takes at that speed: a forecast, not a measurement.

Every launch takes the longer of computing and moving its bytes (the roofline model, Williams et al. 2009); launches follow one another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..measure.timing import alternating
from .counts import Counts

__all__ = ["CEILINGS", "Ceiling", "Forecast", "forecast", "measured"]


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


def measured(device: torch.device, dtype: torch.dtype = torch.float32) -> Ceiling:
    """Of this device, here and now, in a second or so: the best of five products of large matrices in float32 and in `dtype`, and of five copies."""
    cuda = device.type == "cuda"
    side, copied = (8192, 2**28) if cuda else (1024, 2**25)
    peaks = {}
    for kind in {torch.float32, dtype}:
        matrix = torch.ones(side, side, dtype=kind, device=device)
        peaks[kind] = 2 * side**3 / _best_s(partial(torch.matmul, matrix, matrix), device)
    source = torch.ones(copied, device=device)
    target = torch.zeros_like(source)
    moved = 2 * source.nbytes / _best_s(partial(target.copy_, source), device)
    said = f"measured: PyTorch {torch.__version__}, " + (
        torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} threads"
    )
    return Ceiling("this-gpu" if cuda else "this-cpu", peaks, moved, said)


def _best_s(run: Callable[[], object], device: torch.device) -> float:
    return min(alternating({"run": run}, device, 5)["run"]) / 1e3

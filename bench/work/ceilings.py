"""Forecast the time of counted work at the most that a device can do.

Every launch takes the longer of computing and moving its bytes (the roofline model, Williams et al.
2009); launches follow one another. A forecast is no measurement.
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
    """A ceiling: the most that a device can do.

    Attributes:
        name: The device's name.
        flops_per_s: By the type that is computed in: dense, accumulated in float32; on a GPU
            float32 is TF32.
        bytes_per_s: Of its memory.
        source: Where the figures are from.
    """

    name: str
    flops_per_s: Mapping[torch.dtype, float]
    bytes_per_s: float
    source: str


@dataclass(frozen=True)
class Forecast:
    """A forecast of the least time of work on a device.

    Attributes:
        fused_ms: Of every convolution, matrix product and attention; all else costs nothing, as if
            it were fused into these.
        dispatched_ms: Of every launch as it was counted.
    """

    fused_ms: float
    dispatched_ms: float


def forecast(counts: Counts, ceiling: Ceiling) -> Forecast:
    """Forecast the least time of work on a device.

    Raises:
        KeyError: FLOPs are of a type that the ceiling has no figure for.
    """
    fused_s = 0.0
    dispatched_s = 0.0
    for kernel, count in counts.kernels.items():
        moving_s = kernel.bytes / ceiling.bytes_per_s
        if kernel.flops:
            computing_s = kernel.flops / ceiling.flops_per_s[kernel.dtype]
            moving_s = max(computing_s, moving_s)
            fused_s += count * moving_s
        dispatched_s += count * moving_s
    return Forecast(fused_s * 1e3, dispatched_s * 1e3)


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
    """Measure a device's ceiling, here and now, in a second or so.

    It is the best of five products of large matrices, in float32 and in `dtype`, and of five
    copies.
    """
    cuda = device.type == "cuda"
    side = 8192 if cuda else 1024
    length = 2**28 if cuda else 2**25
    peaks = {}
    for kind in {torch.float32, dtype}:
        matrix = torch.ones(side, side, dtype=kind, device=device)
        peaks[kind] = 2 * side**3 / _best_s(partial(torch.matmul, matrix, matrix), device)
    source = torch.ones(length, device=device)
    target = torch.zeros_like(source)
    bytes_per_s = 2 * source.nbytes / _best_s(partial(target.copy_, source), device)
    where = torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} threads"
    description = f"measured: PyTorch {torch.__version__}, {where}"
    return Ceiling("this-gpu" if cuda else "this-cpu", peaks, bytes_per_s, description)


def _best_s(run: Callable[[], object], device: torch.device) -> float:
    return min(alternating({"run": run}, device, 5)["run"]) / 1e3

"""`python -m dragnoise.bench.campaign.profile MODEL DEVICE DTYPE`: the kernels of an edit.

The second edit of an editor is watched by PyTorch's profiler, which sees the kernels of replayed
graphs one by one. A line of JSON a kernel, the longest first: how often it ran, and for how long.
"""

import json
import sys

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from dragnoise.engine import DragConfig

from ..measure.edits import Case
from ..measure.models import model
from ..measure.rows import rows_for

__all__ = ["main"]

_ITERATIONS = 20
_KERNELS = 60


def main(name: str, device: str, dtype: str) -> None:
    """Print the kernels of one edit on pictures of the model's usual size."""
    on_gpu = torch.device(device).type == "cuda"
    side = 128 if name == "embedded" else 512
    config = DragConfig(iterations=_ITERATIONS, lr=1e-4)
    case = Case((side, side), True, config, config)
    row = rows_for(torch.device(device), "graphs" if on_gpu else "packed")[0]
    editor = row.editor(model(name, device, dtype))
    editor.edit(**case.inputs(), method=row.method)
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    all_threads = _ExperimentalConfig(profile_all_threads=True)  # the editor's worker has its own
    with profile(activities=[activity], experimental_config=all_threads) as trace:
        editor.edit(**case.inputs(), method=row.method)
    kernels = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event)
        for event in trace.key_averages()
    ]
    total_us = sum(taken for taken, _ in kernels)
    print(json.dumps({"kernels": len(kernels), "total_ms": round(total_us / 1e3, 1)}))
    for taken, event in sorted(kernels, key=lambda pair: -pair[0])[:_KERNELS]:
        row_of = {"ms": round(taken / 1e3, 2), "times": event.count, "kernel": event.key[:150]}
        print(json.dumps(row_of))


if __name__ == "__main__":
    main(*sys.argv[1:4])

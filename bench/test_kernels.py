"""Run the kernels' cases by pytest-benchmark: `pytest bench`.

They are not part of `make test`: nothing here can fail but by an error.
"""

from typing import Any

import pytest
import torch

from dragnoise.bench.measure.kernels import CASES, Case
from dragnoise.engine.system.device import choose_device

DEVICE = choose_device("auto")
DTYPE = torch.float32 if DEVICE.type == "cpu" else torch.bfloat16


@pytest.mark.parametrize("contender", ["formula", "kernel"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kernel}, {case.why}")
def test_kernel(benchmark: Any, case: Case, contender: str) -> None:
    benchmark.group = f"{case.kernel}, {case.why}"
    if reasons := case.objections(DEVICE, DTYPE):
        pytest.skip("; ".join(reasons))
    run = dict(zip(("formula", "kernel"), case.make(DEVICE, DTYPE), strict=True))[contender]

    def timed() -> None:
        run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(timed, rounds=5, warmup_rounds=2)

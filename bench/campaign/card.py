"""`python -m dragnoise.bench.campaign.card`: how fast the device multiplies and copies, as JSON.

The figures that every share of a roofline is divided by.
"""

import json
import platform
from collections.abc import Callable

import torch

__all__ = ["main"]

_SIDE = 8192
_BYTES = 2**31


def main() -> None:
    """Print the device's name, versions, and the rates of a matrix product and of a copy."""
    about: dict[str, object] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }
    if torch.cuda.is_available():
        about |= {"gpu": torch.cuda.get_device_name(), **_rates()}
    print(json.dumps(about))


def _rates() -> dict[str, float]:
    products = {
        f"matmul_{str(dtype).removeprefix('torch.')}_tflops": 2
        * _SIDE**3
        / _product_ms(dtype)
        / 1e9
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    }
    source = torch.zeros(_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.zeros_like(source)
    return products | {"copy_tb_s": 2 * _BYTES / _mean_ms(lambda: target.copy_(source)) / 1e9}


def _product_ms(dtype: torch.dtype) -> float:
    left = torch.randn(_SIDE, _SIDE, device="cuda", dtype=dtype)
    right = torch.randn_like(left)
    return _mean_ms(lambda: left @ right)


def _mean_ms(work: Callable[[], object], times: int = 10) -> float:
    for _ in range(3):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / times


if __name__ == "__main__":
    main()

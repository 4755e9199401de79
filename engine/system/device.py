"""Choose a device and a precision, or say why they are not available."""

import torch

from ..config import shown
from ..errors import DeviceError

__all__ = ["DTYPES", "choose_device", "choose_dtype"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions that a model can be loaded in, by name."""


def choose_device(wanted: str | torch.device) -> torch.device:
    """Return the device of that name; for "auto" CUDA if there is a device, else the CPU.

    Raises DeviceError for a device that is not here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError, ValueError) as unknown:
        raise DeviceError(
            f"{shown(wanted)} is not a device; use auto, cpu, cuda or cuda:0"
        ) from unknown
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {str(wanted)!r} is not supported; use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = f"PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        raise DeviceError(f"device {str(wanted)!r} was asked for, but {seen}; use cpu")
    return device


def choose_dtype(wanted: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return one of `DTYPES`, from its name or itself; for "auto" what suits the device.

    That is float16 on CUDA: beside what a CPU computes in float32 it is nearer than CUDA's own
    float32, whose convolutions PyTorch computes in TensorFloat-32 (docs/performance.md).

    Raises DeviceError for another, or for float16 on a CPU.
    """
    if isinstance(wanted, str) and wanted == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype = DTYPES.get(wanted) if isinstance(wanted, str) else wanted
    if dtype is None or dtype not in DTYPES.values():
        raise DeviceError(f"precision {wanted!r} is not supported; use auto, {', '.join(DTYPES)}")
    if dtype == torch.float16 and device.type == "cpu":
        raise DeviceError(
            "float16 is not supported on the CPU (it is slow and overflows there); "
            "use float32 or bfloat16"
        )
    return dtype

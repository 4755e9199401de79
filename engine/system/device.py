"""Choose the device and the precision that were asked for, or say why they are not to be had."""

import torch

from ..errors import DeviceError

__all__ = ["DTYPES", "choose_device", "choose_dtype"]


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(asked: str | torch.device) -> torch.device:
    """ "auto": CUDA if there is a device, else the CPU. Raises DeviceError for a device that is not here."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as unknown:
        raise DeviceError(f"{asked!r} is not a device; use auto, cpu, cuda or cuda:0") from unknown
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {str(asked)!r} is not supported; use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = f"PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        raise DeviceError(f"device {str(asked)!r} was asked for, but {seen}; use cpu")
    return device


def choose_dtype(asked: str | torch.dtype, device: torch.device) -> torch.dtype:
    """One of `DTYPES`, by name or itself. Raises DeviceError for another, or float16 on a CPU."""
    dtype = DTYPES.get(asked) if isinstance(asked, str) else asked
    if dtype is None or dtype not in DTYPES.values():
        raise DeviceError(f"precision {asked!r} is not supported; use {', '.join(DTYPES)}")
    if dtype == torch.float16 and device.type == "cpu":
        raise DeviceError(
            "float16 is not supported on the CPU (it is slow and overflows there); use float32 or bfloat16"
        )
    return dtype

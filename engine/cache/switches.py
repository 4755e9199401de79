"""The switches of a process that change the bits of a result: variables and PyTorch's settings.

What is computed under one of them must not be found without it.
"""

import os
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

__all__ = ["settings", "switches", "variables"]

_LIBRARIES = (
    *("ATEN_", "CUBLAS", "CUDNN_", "DNNL_", "KMP_", "MKL_", "ONEDNN_", "OPENBLAS_", "ORT_"),
    *("NVIDIA_TF32_OVERRIDE", "PYTORCH_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "TRITON_"),
    *("XFORMERS_", "XNNPACK_"),
    *("OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OMP_NESTED", "OMP_MAX_ACTIVE_LEVELS", "OMP_SCHEDULE"),
    *("GLIBC_TUNABLES", "LD_PRELOAD"),
)
"""How the names begin of variables that libraries read. Of OpenMP's most say only how to wait."""

_SILENT = ("VERBOSE", "_LOGS", "_DIR", "_HOME", "_ALLOC_CONF", "_BLOCKTIME", "_AFFINITY")
"""How the names end of those that change no bit: where files lie, what is told, who waits how."""

_SETTING = re.compile(
    r"_(get|is)_\w*(precision|tf32|sdp|cudnn|blas|linalg|mkldnn|onednn|nnpack|xnnpack|"
    r"deterministic|reduction|accumulation|carveout|_fa_)\w*"
)
"""Getters of PyTorch's settings by name, so that those of another release are found too."""

_PRECISIONS = (
    *("generic all", "mkldnn all", "mkldnn conv", "mkldnn matmul", "mkldnn rnn"),
    *("cuda all", "cuda conv", "cuda matmul", "cuda rnn"),
)
"""Backend and operators that have a precision for float32 of their own."""


def switches(device: torch.device) -> str:
    """Return all of them as they are in this thread now, and the number of threads, as a text."""
    return repr((torch.get_num_threads(), variables(), settings(device)))


def variables() -> dict[str, str]:
    """Return the variables of the process that libraries which compute read."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_LIBRARIES) and not name.endswith(_SILENT)
    }


def settings(device: torch.device) -> dict[str, str]:
    """Return PyTorch's settings by name, as they are in this thread now."""
    readers = _getters() | {
        "default dtype": torch.get_default_dtype,
        "default device": torch.get_default_device,
        "autocast": lambda: _autocast(device.type),
        "keeps denormal numbers": _keeps_denormals,
        "einsum": lambda: (torch.backends.opt_einsum.enabled, torch.backends.opt_einsum.strategy),
    }
    return {name: _told(read) for name, read in readers.items()}


@cache
def _getters() -> dict[str, Callable[[], object]]:
    getters: dict[str, Callable[[], object]] = {
        name: getattr(torch._C, name) for name in dir(torch._C) if _SETTING.fullmatch(name)
    }
    of_operators: Any = getters.pop("_get_fp32_precision_getter", None)
    if of_operators is not None:
        for pair in _PRECISIONS:
            getters[pair] = _precision(of_operators, *pair.split())
    return getters


def _precision(
    getter: Callable[[str, str], str], backend: str, operators: str
) -> Callable[[], str]:
    """Return what reads a precision; where none was named it is float32's own."""
    return lambda: getter(backend, operators).replace("none", "ieee")


def _told(read: Callable[[], object]) -> str:
    """Return a setting as text; a getter that refuses to tell is told by its kind of error.

    PyTorch's older getters do once its newer settings were used; those are read beside them.
    """
    try:
        return str(read())
    except (RuntimeError, TypeError) as refused:
        return type(refused).__name__


def _autocast(device: str) -> tuple[object, ...]:
    """Return for the device, and for the CPU, what autocast casts to; None if it is off."""
    return tuple(
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        for kind in (device, "cpu")
    )


def _keeps_denormals() -> bool:
    """Whether this thread keeps numbers below 1e-38 (`torch.set_flush_denormal` has no getter)."""
    return float(torch.tensor(1e-40, dtype=torch.float32, device="cpu") * 0.5) != 0.0

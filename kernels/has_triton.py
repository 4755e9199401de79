"""Whether Triton is installed, found out without importing it."""

import functools
import importlib.util

__all__ = ["has_triton"]


@functools.cache
def has_triton() -> bool:
    """Whether the GPU kernels can be compiled; if not, their references run instead."""
    return importlib.util.find_spec("triton") is not None

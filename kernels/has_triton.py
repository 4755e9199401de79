"""What of the optional extras is installed, asked without importing it."""

import functools
import importlib.util

__all__ = ["has_triton"]


@functools.cache
def has_triton() -> bool:
    """Whether the GPU kernels can be compiled; where not, their formulas run in PyTorch's own operators."""
    return importlib.util.find_spec("triton") is not None

"""Whether the kernels' C++ twins were built, found out once, and said once where they were not."""

import functools
import importlib
import logging

import torch  # noqa: F401 the twins share its pool of threads: it is loaded first

__all__ = ["has_native", "tell_of_formulas", "why_no_native"]

_log = logging.getLogger("dragnoise")


def has_native(twin: str | None = None) -> bool:
    """Whether the C++ twins can be loaded; if not, the formulas in plain PyTorch run instead.

    twin: A kernel that was added later: the module may have been built before.
    """
    return not why_no_native() and (twin is None or _is_built(twin))


@functools.cache
def why_no_native() -> str:
    """Return why the C++ twins cannot be loaded; empty if they can."""
    try:
        importlib.import_module("dragnoise.kernels._native")
    except ModuleNotFoundError:
        return "it was installed without a C++ compiler"
    except ImportError as refused:
        return str(refused).partition("\n")[0]
    return ""


@functools.cache
def _is_built(twin: str) -> bool:
    """Whether the module has a twin; logs, once, that it has not."""
    built = hasattr(importlib.import_module("dragnoise.kernels._native"), twin)
    if not built:
        _log.warning(
            "the C++ kernels were built before %s was one of them, and its formula runs, which is "
            "slower; install dragnoise anew",
            twin,
        )
    return built


@functools.cache
def tell_of_formulas() -> None:
    """Log, once, that the formulas run on a CPU, if they do."""
    if not has_native():
        _log.warning(
            "dragnoise runs on its formulas, which is slower: no C++ kernels (%s); "
            "install it with one, or from a wheel",
            why_no_native(),
        )

"""Modes that a host program may be in when it calls the engine, by name."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["MODES", "observed"]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_device().type == device
    finally:
        torch.set_default_device(None)


@contextmanager
def _grad_off() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _anomaly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what entering it says
        mode = torch.autograd.detect_anomaly(check_nan=False)
    with mode:
        yield


@contextmanager
def _seeded() -> Iterator[None]:
    """Be in the middle of random numbers of one's own, which nobody else may draw."""
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 the global generator is the point
    torch.rand(3)
    before = torch.get_rng_state()
    numpy_before = _numpy_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
    assert _numpy_state() == numpy_before


def _numpy_state() -> list[int]:
    state: Any = np.random.get_state()  # noqa: NPY002 the global generator is the point
    return list(state[1])


class _Dispatching(TorchDispatchMode):
    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


class _Overriding(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


def _two(*modes: Callable[[], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for mode in modes:
        stack.enter_context(mode())
    return stack


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "none": nullcontext,
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "grad off": _grad_off,
    "default float64": lambda: _default_dtype(torch.float64),
    "default bfloat16": lambda: _default_dtype(torch.bfloat16),
    "default float16": lambda: _default_dtype(torch.float16),
    "default device": lambda: _default_device("meta"),
    "device": lambda: torch.device("meta"),
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "deterministic": _deterministic,
    "anomaly": _anomaly,
    "numpy raises": lambda: np.errstate(all="raise"),
    "own random numbers": _seeded,
    "dispatch": _Dispatching,
    "override": _Overriding,
    "inference and autocast": lambda: _two(
        torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)
    ),
}


def observed() -> tuple[object, ...]:
    """Return what the modes of this thread and process are."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        np.geterr(),
    )

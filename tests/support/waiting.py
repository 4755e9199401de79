"""Code on CUDA that must not wait for the device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["never_waiting"]


@contextmanager
def never_waiting() -> Iterator[None]:
    """Let every operation that waits for the device raise RuntimeError while this is open."""
    try:
        with warnings.catch_warnings():
            # "does not yet detect all": what it does detect is enough here
            warnings.filterwarnings("ignore", message="Synchronization debug mode")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")

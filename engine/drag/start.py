"""The first two looks at a place: what a method starts with, and what its first pass shows."""

from typing import Any, TypeVar

import torch

from ..config import DragSettings
from ..run import kept
from .method import Forward, Method, Start
from .scene import Scene

__all__ = ["reference", "start"]

P = TypeVar("P")
Q = TypeVar("Q", bound=DragSettings)
C = TypeVar("C")
F = TypeVar("F", bound=Forward)


@kept(on_disk=False)
@torch.no_grad()
def start(method: Method[P, Q, C, F, Any], place: P) -> Start[C]:
    """Return what the method has before its first update: its constants and its variable."""
    return method.start(place)


@kept(on_disk=False)
def reference(
    method: Method[P, Q, C, F, Any],
    place: P,
    start: Start[C],
    settings: Q,
    resolution: tuple[int, int],
    dtype: torch.dtype,
    output: bool,
) -> F:
    """Return what the first forward pass of a drag at a place shows, bit for bit.

    Args:
        start: What the drag began with.
        resolution: (rows, columns) of the supervision map.
        dtype: What the method reads the variable in.
        output: Whether the pass goes on to the network's output.
    """
    nowhere = torch.zeros(0, 2, dtype=torch.int64)
    scene = Scene(place, nowhere, nowhere, resolution, None, settings, output)
    with torch.enable_grad():  # as the drag runs it: kernels may be others without
        leaf = start.variable.to(dtype).detach().requires_grad_()
        return method.features(scene, start.constants, leaf).detach()

"""What PyTorch computes with inside the engine, whatever modes a host program is in.

A host may call us in inference mode, under autocast, with another default dtype or device. Most of
these belong to a thread: the worker's own begins without them, and every job is done in
`own_numerics`, for a callback that edits is a job in the caller's modes. What is done in the
caller's thread (loading, reading files, choosing a backend) is done in it too.

The default dtype belongs to the whole process. So nothing here changes it, and nothing reads it:
every tensor of ours is made with a dtype that is named, and loaded networks take their files'.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

__all__ = ["ordinary", "own_numerics"]

_AUTOCAST = ("cpu", "cuda")


@contextmanager
def own_numerics() -> Iterator[None]:
    """Compute with gradients where they are wanted, in the dtypes and on the devices named."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd can use: one made in inference mode as a view of its memory.

    To be called outside inference mode (`own_numerics`).
    """
    if not tensor.is_inference():
        return tensor
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    view.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
    return view

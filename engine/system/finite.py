"""Look whether what was computed are numbers: NaN and infinity end the work, with a typed error.

They spread: one in a weight, or an overflow, is a black picture some stages later. So every stage's
result is looked at when it is made (`run.py`), before anybody keeps it, and a drag's losses at its
end: the first that is wrong tells where it began. A look is one read of the device.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import NumbersError

__all__ = ["check_finite", "check_loss", "is_finite"]

T = TypeVar("T")

_VAE = "check the VAE in the model's files, or give its weights in float32"
_UNET = "check the model's files, use a smaller adapter_scale or no adapter, or try dtype='float32'"

_REMEDIES: Mapping[str, str] = {
    "encode": _VAE,
    "decode": _VAE,
    "preview": "check the decoder of the previews, or take previews=None",
    "embed": "check the text encoder in the model's files, or try dtype='float32'",
    "find_styles": "take a smaller inversion_lr, or check the generator's files",
    "synthesise": "take a smaller lr, or check the generator's files",
    "drag": "take a smaller lr or lam, or try dtype='float32'",
    "personalise": "take a smaller lr for the training, or try dtype='float32'",
}
"""What to try, by the stage whose result was the first that was wrong; others: `_UNET`."""


def check_finite(stage: str, result: T) -> T:
    """Return a stage's result, if all its numbers are finite.

    Args:
        stage: Its name.
        result: Tensors, or tuples and dataclasses of them; other things are not looked at.

    Raises:
        NumbersError: Naming the stage and what to try.
    """
    if not is_finite(result):
        raise NumbersError(
            f"the stage {stage!r} is the first whose numbers are not finite (NaN or infinity); "
            f"{_REMEDIES.get(stage, _UNET)}"
        )
    return result


def check_loss(what: str, number: int, loss: float) -> float:
    """Return the loss of an iteration or a step, if it is finite.

    Args:
        what: "drag" or "personalise".
        number: Of the iteration, from 0.
        loss: What it was.

    Raises:
        NumbersError: Naming the iteration and what to try.
    """
    if not math.isfinite(loss):
        remedy = _REMEDIES[what] if number else f"{_REMEDIES[what]}; else {_UNET}"
        raise NumbersError(f"the loss of {what!r} is {loss} at iteration {number}; {remedy}")
    return loss


def is_finite(value: Any) -> bool:
    """Whether all numbers of a value are finite; waits for the device once."""
    looks = [tensor.detach().isfinite().all() for tensor in _tensors(value)]
    return bool(torch.stack(looks).all()) if looks else True


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and not value.is_meta:  # no numbers: work is only counted
            yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for item in vars(value).values():
            yield from _tensors(item)

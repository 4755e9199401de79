"""Say what a tensor that somebody else wrote must be: the rule of tensors for a schema."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..system.schema import MismatchError, mismatch

__all__ = ["Array"]


@dataclass(frozen=True)
class Array:
    """A tensor.

    Attributes:
        dtypes: Those that it may have.
        shape: Its sides, None for any from 1 on; None: any shape.
        low: Its least number.
        high: Its greatest number.
    """

    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    shape: tuple[int | None, ...] | None = None
    low: float | None = None
    high: float | None = None

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, Tensor):
            raise mismatch(where, f"a tensor {self._wanted()}", value)
        if value.dtype not in self.dtypes or not self._fits(tuple(value.shape)):
            raise MismatchError(
                f"{where} must be {self._wanted()}, got {_name(value.dtype)} {list(value.shape)}"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise MismatchError(f"{where} has numbers that are not finite")
        for end, is_outside in ((self.low, torch.lt), (self.high, torch.gt)):
            if end is not None and bool(is_outside(value, end).any()):
                raise MismatchError(
                    f"{where} must lie between {self.low} and {self.high}, "
                    f"it does between {value.min().item():g} and {value.max().item():g}"
                )

    def _fits(self, shape: tuple[int, ...]) -> bool:
        wanted = self.shape
        if wanted is None:
            return 0 not in shape
        return len(shape) == len(wanted) and all(
            side == fixed if fixed is not None else side > 0
            for side, fixed in zip(shape, wanted, strict=True)
        )

    def _wanted(self) -> str:
        names = " or ".join(_name(dtype) for dtype in self.dtypes)
        if self.shape is None:
            return names
        sides = ", ".join("any" if side is None else str(side) for side in self.shape)
        return f"{names} [{sides}]"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

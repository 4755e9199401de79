"""How closely two computations of the same thing must agree: one table, by dtype."""

import torch
from torch import Tensor

TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
"""Allowed difference, relative to the larger of 1 and the expected value."""


def assert_close(actual: Tensor, expected: Tensor, computed_in: torch.dtype | None = None) -> None:
    """Fail if `actual` differs from `expected` by more than the table allows.

    Shapes must be equal; dtypes need not: they are compared in float64.

    computed_in: The row of the table; None: the dtype of `actual`.
    """
    tolerance = TOLERANCES[computed_in or actual.dtype]
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)

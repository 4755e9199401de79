"""The promises of conftest.py to every other test, and the order of the test tree."""

from collections import Counter
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_fresh_memory_is_nan(dtype: torch.dtype) -> None:
    like = torch.zeros(3, dtype=dtype)
    for fresh in (
        torch.empty(3, dtype=dtype),
        torch.empty_like(like),
        like.new_empty(3),
        torch.empty_strided((3,), (1,), dtype=dtype),
    ):
        assert fresh.isnan().all()


def test_fresh_integers_are_out_of_any_range() -> None:
    assert (torch.empty(3, dtype=torch.int64) == torch.iinfo(torch.int64).max).all()
    assert torch.empty(3, dtype=torch.bool).all()


def test_file_names_are_unique() -> None:
    """Tests are imported without packages, so that two files of one name are one module to mypy."""
    files = Path(__file__).parent.rglob("*.py")
    names = Counter(path.name for path in files if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []

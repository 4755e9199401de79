"""Weights of the small map's rows against the upsampled map itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from dragnoise.kernels.bilinear import shifted_weights, upsample_weights
from tolerances import assert_close

SIZES = [
    pytest.param(64, 256, id="SD-1.5-at-512"),
    pytest.param(17, 40, id="odd-ratio"),
    pytest.param(33, 100, id="third"),
    pytest.param(9, 9, id="the-same"),
    pytest.param(13, 7, id="shrinking"),
    pytest.param(1, 5, id="one-row"),
    pytest.param(5, 1, id="to-one-row"),
]
DTYPES = [torch.float32, torch.float64]


def upsampled(small: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(small[None], size=size, mode="bilinear", align_corners=False)[0]


def shifted(large: Tensor, first: float, count: int, dim: int) -> Tensor:
    """Return `count` rows of `large` along `dim` from the fractional row `first`, one by one."""
    rows = []
    for k in range(count):
        position = torch.tensor(first, dtype=torch.float64) + k
        whole = int(position.floor())
        fraction = float(position - whole)
        above, below = (
            large.select(dim, min(max(row, 0), large.shape[dim] - 1)) for row in (whole, whole + 1)
        )
        rows.append((1 - fraction) * above + fraction * below)
    return torch.stack(rows, dim)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_every_row_of_the_upsampled_map(small: int, large: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(small * large)
    features = torch.randn(3, small, 6, dtype=dtype, generator=generator)
    weights = upsample_weights(torch.arange(large, dtype=dtype), small, large)
    assert weights.dtype == dtype
    assert_close(torch.einsum("kh,chw->ckw", weights, features), upsampled(features, (large, 6)))
    assert (weights >= 0).all()
    assert_close(weights.sum(-1), torch.ones(large))


def test_integer_and_half_positions_give_float32() -> None:
    expected = upsample_weights(torch.arange(7, dtype=torch.float32), 3, 7)
    for dtype in (torch.int64, torch.int32, torch.bfloat16, torch.float16):
        weights = upsample_weights(torch.arange(7, dtype=dtype), 3, 7)
        assert weights.dtype == torch.float32
        assert torch.equal(weights, expected)


def test_float32_weights_are_right_to_the_last_bit() -> None:
    single = upsample_weights(torch.arange(1000), 301, 1000)
    double = upsample_weights(torch.arange(1000, dtype=torch.float64), 301, 1000)
    assert (single - double).abs().max() <= torch.finfo(torch.float32).eps / 2


def test_rows_outside_are_the_border() -> None:
    weights = upsample_weights(torch.tensor([-9, -1, 0, 19, 20, 99]), 8, 20)
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[1], weights[2])
    assert torch.equal(weights[4], weights[3])
    assert torch.equal(weights[5], weights[3])


def test_batches_of_positions() -> None:
    positions = torch.arange(24).reshape(2, 3, 4)
    weights = upsample_weights(positions, 7, 24)
    assert weights.shape == (2, 3, 4, 7)
    assert torch.equal(weights[1, 2], upsample_weights(positions[1, 2], 7, 24))
    assert shifted_weights(torch.zeros(2, 3), 5, 7, 24).shape == (2, 3, 5, 7)
    assert shifted_weights(torch.zeros(()), 5, 7, 24).shape == (5, 7)
    assert shifted_weights(torch.zeros(0), 5, 7, 24).shape == (0, 5, 7)


@pytest.mark.parametrize(
    "first", [0.0, 3.0, 2.25, 7.6180339887, -0.5, -2.3, -40.0, 17.9, 18.5, 21.0, 90.5]
)
def test_shifted_rows_inside_across_and_outside_the_border(first: float) -> None:
    features = torch.randn(3, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = shifted_weights(torch.tensor(first, dtype=torch.float64), 4, 9, 20)
    rows = torch.einsum("kh,chw->ckw", weights, features)
    assert_close(rows, shifted(upsampled(features, (20, 5)), first, 4, dim=1))


def test_whole_first_row_is_upsample_weights() -> None:
    assert torch.equal(
        shifted_weights(torch.tensor(5), 6, 9, 20), upsample_weights(torch.arange(5, 11), 9, 20)
    )


@given(
    small=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    large=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    first=st.tuples(st.floats(-6, 45), st.floats(-6, 45)),
    count=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_patch_is_that_of_the_upsampled_map(
    small: tuple[int, int],
    large: tuple[int, int],
    first: tuple[float, float],
    count: int,
    seed: int,
) -> None:
    features = torch.randn(
        2, *small, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    rows, columns = (
        shifted_weights(torch.tensor(start, dtype=torch.float64), count, size_small, size_large)
        for start, size_small, size_large in zip(first, small, large, strict=True)
    )
    patch = torch.einsum("kh,chw,lw->ckl", rows, features, columns)
    expected = shifted(
        shifted(upsampled(features, large), first[0], count, dim=1), first[1], count, dim=2
    )
    assert_close(patch, expected)


@pytest.mark.parametrize(("small", "large"), [(0, 4), (4, 0), (-1, 4)])
def test_sizes_below_one_are_refused(small: int, large: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        upsample_weights(torch.zeros(1), small, large)


def test_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        shifted_weights(torch.zeros(1), 0, 4, 8)

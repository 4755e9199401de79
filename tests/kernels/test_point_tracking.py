"""Point tracking, by the native kernel and by the formula, against the upsampled map and plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from dragnoise.kernels import _native
from dragnoise.kernels.point_tracking import formula, track

Track = Callable[[Tensor, Tensor, Tensor, tuple[int, int], int], Tensor]
BOTH = pytest.mark.parametrize("function", [track, formula], ids=["native", "formula"])


def upsampled(features: Tensor, resolution: tuple[int, int]) -> Tensor:
    return interpolate(features[None], size=resolution, mode="bilinear", align_corners=False)[0]


def searched(
    features: Tensor, reference: Tensor, handles: Tensor, resolution: tuple[int, int], radius: int
) -> list[list[int]]:
    """The definition: upsample all, look at every position of the window in row-major order, keep the first that is strictly nearer."""
    large = upsampled(features, resolution)
    moved = []
    for (row, column), wanted in zip(handles.tolist(), reference, strict=True):
        least, at = torch.inf, [0, 0]
        for i in range(row - radius, row + radius + 1):
            for j in range(column - radius, column + radius + 1):
                here = [min(max(i, 0), resolution[0] - 1), min(max(j, 0), resolution[1] - 1)]
                distance = float((large[:, here[0], here[1]] - wanted).abs().sum())
                if distance < least:
                    least, at = distance, here
        moved.append(at)
    return moved


def case(
    size: tuple[int, int, int], resolution: tuple[int, int], points: int, seed: int, outside: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randint(-outside, side + outside, (points,), generator=generator) for side in resolution]
    return (
        torch.randn(size, generator=generator),
        torch.randn(points, size[0], generator=generator),
        torch.stack(draw, dim=1),
    )


@BOTH
@pytest.mark.parametrize(
    ("size", "resolution"),
    [
        pytest.param((16, 16, 16), (64, 64), id="a-quarter"),
        pytest.param((7, 11, 6), (29, 31), id="odd-ratios-not-square"),
        pytest.param((9, 8, 8), (8, 8), id="the-same"),
        pytest.param((8, 20, 30), (9, 11), id="shrinking"),
        pytest.param((5, 1, 1), (4, 6), id="one-feature"),
        pytest.param((1, 6, 5), (17, 13), id="one-channel"),
    ],
)
def test_equals_the_search_of_the_upsampled_map(
    function: Track, size: tuple[int, int, int], resolution: tuple[int, int]
) -> None:
    features, reference, handles = case(size, resolution, points=12, seed=sum(size), outside=9)
    if size == (5, 1, 1):  # every position is equally near: rounding must not choose
        features = features.round()
        reference = reference.round()
    assert function(features, reference, handles, resolution, 3).tolist() == searched(
        features, reference, handles, resolution, 3
    )


@given(
    size=st.tuples(st.integers(1, 19), st.integers(1, 9), st.integers(1, 9)),
    resolution=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    radius=st.integers(0, 5),
    points=st.integers(0, 6),
    seed=st.integers(0, 999),
)
def test_native_finds_as_near_a_feature_as_any(
    size: tuple[int, int, int], resolution: tuple[int, int], radius: int, points: int, seed: int
) -> None:
    """Random sizes can make near ties, where rounding chooses: what must be equal is the distance, in float64."""
    features, reference, handles = case(size, resolution, points, seed, outside=7)
    large = upsampled(features.double(), resolution)

    def distances(positions: Tensor) -> Tensor:
        return (large[:, positions[:, 0], positions[:, 1]].T - reference).abs().sum(1)

    native = track(features, reference, handles, resolution, radius)
    exact = formula(features.double(), reference.double(), handles, resolution, radius)
    assert native.dtype == torch.int64
    assert native.shape == exact.shape == (points, 2)
    torch.testing.assert_close(distances(native), distances(exact), rtol=0, atol=1e-5 * size[0])


@BOTH
def test_finds_the_reference_where_it_is(function: Track) -> None:
    features = torch.randn(32, 16, 16, generator=torch.Generator().manual_seed(3))
    expected = torch.tensor([[10, 20], [0, 0], [60, 61], [40, 2]])
    large = upsampled(features, (64, 64))
    reference = large[:, expected[:, 0], expected[:, 1]].T
    handles = expected + torch.tensor([[3, -3], [-2, 1], [2, 3], [-1, 3]])
    assert torch.equal(function(features, reference, handles, (64, 64), 3), expected)


@BOTH
def test_the_first_of_equals_wins(function: Track) -> None:
    features = torch.zeros(8, 6, 6)  # equally near everywhere
    handles = torch.tensor([[10, 10], [0, 0], [23, 23], [1, 22]])
    moved = function(features, torch.ones(4, 8), handles, (24, 24), 3)
    assert moved.tolist() == [[7, 7], [0, 0], [20, 20], [0, 19]]


@BOTH
def test_the_first_of_two_equal_peaks_wins_in_row_major_order(function: Track) -> None:
    features = torch.zeros(3, 9, 9)
    features[:, 3, 6] = features[:, 5, 2] = features[:, 5, 4] = 1
    handle = torch.tensor([[4, 4]])
    assert function(features, torch.ones(1, 3), handle, (9, 9), 2).tolist() == [[3, 6]]
    assert function(features, torch.ones(1, 3), handle + torch.tensor([[2, -1]]), (9, 9), 2).tolist() == [[5, 2]]


@BOTH
def test_far_outside_means_the_nearest_border(function: Track) -> None:
    features, reference, _ = case((4, 6, 6), (24, 20), points=3, seed=1)
    handles = torch.tensor([[-1000, 5000], [1 << 40, -(1 << 40)], [30, 30]])
    assert function(features, reference, handles, (24, 20), 3).tolist() == [[0, 19], [23, 0], [23, 19]]


@BOTH
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_leave_the_handle_in_its_window(function: Track, value: float) -> None:
    features = torch.ones(2, 9, 9)
    features[0, :4] = value
    for broken in (features, torch.full_like(features, value)):
        moved = function(broken, torch.zeros(1, 2), torch.tensor([[7, 4]]), (9, 9), 2)
        assert (moved - torch.tensor([[7, 4]])).abs().max() <= 2


@BOTH
def test_memory_order_does_not_matter(function: Track) -> None:
    features, reference, handles = case((16, 10, 12), (40, 48), points=6, seed=5)
    expected = function(features, reference, handles, (40, 48), 3)
    last = features[None].contiguous(memory_format=torch.channels_last)[0]
    assert last.stride(0) == 1
    for same in (
        last,
        torch.cat([features, features])[:16],
        features.flip(2).flip(2),
        features.transpose(1, 2).contiguous().mT,
    ):
        assert torch.equal(function(same, reference, handles, (40, 48), 3), expected)
    assert torch.equal(function(features, reference.T.contiguous().T, handles.T.contiguous().T, (40, 48), 3), expected)


@BOTH
def test_no_points_and_no_window(function: Track) -> None:
    features, reference, handles = case((4, 5, 5), (20, 20), points=2, seed=2)
    assert function(features, reference[:0], handles[:0], (20, 20), 3).shape == (0, 2)
    assert torch.equal(function(features, reference, handles, (20, 20), 0), handles)


@BOTH
def test_many_points(function: Track) -> None:
    features, reference, handles = case((8, 16, 16), (64, 64), points=300, seed=4)
    assert function(features, reference, handles, (64, 64), 2).tolist() == searched(
        features, reference, handles, (64, 64), 2
    )


@BOTH
def test_inputs_that_carry_gradients(function: Track) -> None:
    features, reference, handles = case((4, 5, 5), (20, 20), points=2, seed=2)
    expected = function(features, reference, handles, (20, 20), 2)
    moved = function(features.requires_grad_(), reference.requires_grad_(), handles, (20, 20), 2)
    assert torch.equal(moved, expected)
    assert not moved.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_without_rounding_to_them(dtype: torch.dtype) -> None:
    features, reference, handles = case((16, 12, 12), (48, 48), points=10, seed=6)
    features, reference = features.to(dtype), reference.to(dtype)
    expected = track(features.float(), reference.float(), handles, (48, 48), 3)
    assert torch.equal(track(features, reference, handles, (48, 48), 3), expected)


def test_native_operator_keeps_pytorchs_rules() -> None:
    features, reference, handles = case((4, 5, 5), (20, 20), points=2, seed=2)
    torch.library.opcheck(torch.ops.dragnoise.track_points.default, (features, reference, handles, 20, 20, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_equals_the_cpu_and_never_waits(dtype: torch.dtype) -> None:
    features, reference, handles = case((64, 16, 16), (64, 64), points=20, seed=7)
    features, reference = features.to(dtype), reference.to(dtype)
    expected = track(features, reference, handles, (64, 64), 3)
    there = [tensor.cuda() for tensor in (features, reference, handles)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = track(there[0], there[1], there[2], (64, 64), 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(moved.cpu(), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.zeros(2, 3)}, r"features must be \[C, h, w\]"),
        ({"features": torch.zeros(2, 0, 3)}, r"features must be \[C, h, w\] with no side 0"),
        ({"handles": torch.zeros(1, 2)}, r"handles must be \[N, 2\] int64, got \[1, 2\] torch.float32"),
        ({"handles": torch.zeros(1, 3, dtype=torch.int64)}, r"handles must be \[N, 2\]"),
        ({"reference": torch.zeros(2, 2)}, r"reference must be \[1, 2\]"),
        ({"reference": torch.zeros(1, 2, device="meta")}, "devices differ"),
        ({"resolution": (0, 4)}, "resolution must be at least"),
        ({"radius": -1}, "radius at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, object], message: str) -> None:
    inputs: dict[str, object] = {
        "features": torch.zeros(2, 3, 3),
        "reference": torch.zeros(1, 2),
        "handles": torch.zeros(1, 2, dtype=torch.int64),
        "resolution": (9, 9),
        "radius": 1,
    }
    with pytest.raises(ValueError, match=message):
        track(**(inputs | changed))  # type: ignore[arg-type]


class TestNative:
    """The module by itself: it trusts nobody with its memory."""

    features = np.zeros((2, 3, 3), np.float32)
    references = np.zeros((1, 2), np.float32)
    handles = np.zeros((1, 2), np.int64)

    def test_takes_numpy_and_any_strides(self) -> None:
        moved = _native.track_points(self.features[:, ::-1, ::2], self.references, self.handles, (9, 9), 1)
        assert moved.dtype == np.int64
        assert moved.tolist() == [[0, 0]]

    def test_refuses_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"references: expected \[1, 2\] \(handles, channels\), got \[1, 3\]"):
            _native.track_points(self.features, np.zeros((1, 3), np.float32), self.handles, (9, 9), 1)
        with pytest.raises(ValueError, match=r"features: no side may be 0, got \[2, 0, 3\]"):
            _native.track_points(self.features[:, :0], self.references, self.handles, (9, 9), 1)
        with pytest.raises(ValueError, match=r"resolution: must be at least \(1, 1\), got \(9, 0\)"):
            _native.track_points(self.features, self.references, self.handles, (9, 0), 1)
        with pytest.raises(ValueError, match="radius: must not be negative, got -1"):
            _native.track_points(self.features, self.references, self.handles, (9, 9), -1)

    def test_refuses_types_rather_than_converting_them(self) -> None:
        for features, handles in (
            (self.features.astype(np.float64), self.handles),
            (self.features[0], self.handles),
            (self.features, self.handles.astype(np.int32)),
            (self.features, np.zeros((1, 4), np.int64)[:, ::2]),
        ):
            with pytest.raises(TypeError):
                _native.track_points(features, self.references, handles, (9, 9), 1)  # type: ignore[arg-type]

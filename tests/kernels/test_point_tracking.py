"""Point tracking, by every kernel and the reference, against the upsampled map and plain loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from dragnoise.kernels import _native
from dragnoise.kernels.patch_motion import REACHED
from dragnoise.kernels.point_tracking import TrackedPoints, reference, track
from waiting import never_waiting

Track = Callable[[Tensor, Tensor, Tensor, Tensor, tuple[int, int], int], TrackedPoints]


def on_gpu(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    resolution: tuple[int, int],
    radius: int,
) -> TrackedPoints:
    """The Triton kernel, under its interpreter where there is no GPU."""
    from dragnoise.kernels.gpu.point_tracking import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    small, wanted, start, end = (
        tensor.detach().to(device) for tensor in (features, origins, handles, targets)
    )
    with np.errstate(
        invalid="ignore"
    ):  # the interpreter computes in numpy, which warns of inf - inf
        moved, reached, all_reached = launch(small, wanted, start, end, resolution, radius, REACHED)
    return TrackedPoints(moved.cpu(), reached.cpu(), all_reached.cpu())


BOTH = pytest.mark.parametrize("function", [track, reference], ids=["native", "reference"])
ALL = pytest.mark.parametrize(
    "function", [track, reference, on_gpu], ids=["native", "reference", "triton"]
)


def upsampled(features: Tensor, resolution: tuple[int, int]) -> Tensor:
    return interpolate(features[None], size=resolution, mode="bilinear", align_corners=False)[0]


def searched(
    features: Tensor, origins: Tensor, handles: Tensor, resolution: tuple[int, int], radius: int
) -> list[list[int]]:
    """Search by the definition: upsample all, look at every position in row-major order.

    The first that is strictly nearer is kept.
    """
    large = upsampled(features, resolution)
    moved = []
    for (row, column), wanted in zip(handles.tolist(), origins, strict=True):
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
    size: tuple[int, int, int],
    resolution: tuple[int, int],
    points: int,
    seed: int,
    outside: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [
        torch.randint(-outside, side + outside, (points,), generator=generator)
        for side in resolution
    ]
    return (
        torch.randn(size, generator=generator),
        torch.randn(points, size[0], generator=generator),
        torch.stack(draw, dim=1),
    )


@ALL
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
    features, origins, handles = case(size, resolution, points=12, seed=sum(size), outside=9)
    if size == (5, 1, 1):  # every position is equally near: rounding must not choose
        features = features.round()
        origins = origins.round()
    moved = function(features, origins, handles, handles, resolution, 3).moved
    assert moved.tolist() == searched(features, origins, handles, resolution, 3)


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
    """Random sizes can make near ties, where rounding chooses: distances must be equal."""
    features, origins, handles = case(size, resolution, points, seed, outside=7)
    large = upsampled(features.double(), resolution)

    def distances(positions: Tensor) -> Tensor:
        return (large[:, positions[:, 0], positions[:, 1]].T - origins).abs().sum(1)

    native = track(features, origins, handles, handles, resolution, radius).moved
    exact = reference(
        features.double(), origins.double(), handles, handles, resolution, radius
    ).moved
    assert native.dtype == torch.int64
    assert native.shape == exact.shape == (points, 2)
    torch.testing.assert_close(distances(native), distances(exact), rtol=0, atol=1e-5 * size[0])


@ALL
def test_finds_the_reference_where_it_is(function: Track) -> None:
    features = torch.randn(32, 16, 16, generator=torch.Generator().manual_seed(3))
    expected = torch.tensor([[10, 20], [0, 0], [60, 61], [40, 2]])
    large = upsampled(features, (64, 64))
    origins = large[:, expected[:, 0], expected[:, 1]].T
    handles = expected + torch.tensor([[3, -3], [-2, 1], [2, 3], [-1, 3]])
    assert torch.equal(function(features, origins, handles, handles, (64, 64), 3).moved, expected)


@ALL
def test_the_first_of_equals_wins(function: Track) -> None:
    features = torch.zeros(8, 6, 6)  # equally near everywhere
    handles = torch.tensor([[10, 10], [0, 0], [23, 23], [1, 22]])
    moved = function(features, torch.ones(4, 8), handles, handles, (24, 24), 3).moved
    assert moved.tolist() == [[7, 7], [0, 0], [20, 20], [0, 19]]


@ALL
def test_the_first_of_two_equal_peaks_wins_in_row_major_order(function: Track) -> None:
    features = torch.zeros(3, 9, 9)
    features[:, 3, 6] = features[:, 5, 2] = features[:, 5, 4] = 1
    handle = torch.tensor([[4, 4]])
    lower = handle + torch.tensor([[2, -1]])
    assert function(features, torch.ones(1, 3), handle, handle, (9, 9), 2).moved.tolist() == [
        [3, 6]
    ]
    assert function(features, torch.ones(1, 3), lower, lower, (9, 9), 2).moved.tolist() == [[5, 2]]


@ALL
def test_far_outside_means_the_nearest_border(function: Track) -> None:
    features, origins, _ = case((4, 6, 6), (24, 20), points=3, seed=1)
    handles = torch.tensor([[-1000, 5000], [1 << 40, -(1 << 40)], [30, 30]])
    moved = function(features, origins, handles, handles, (24, 20), 3).moved
    assert moved.tolist() == [[0, 19], [23, 0], [23, 19]]


@ALL
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_leave_the_handle_in_its_window(
    function: Track, value: float
) -> None:
    features = torch.ones(2, 9, 9)
    features[0, :4] = value
    for broken in (features, torch.full_like(features, value)):
        handle = torch.tensor([[7, 4]])
        moved = function(broken, torch.zeros(1, 2), handle, handle, (9, 9), 2).moved
        assert (moved - handle).abs().max() <= 2


@pytest.mark.parametrize("function", [track, on_gpu], ids=["native", "triton"])
def test_kernels_pass_over_what_is_not_a_number(function: Track) -> None:
    features, handle = torch.full((2, 9, 9), 5.0), torch.tensor([[4, 4]])
    features[0, 3, 3:7] = torch.nan
    features[:, 5, 5] = 1
    assert function(features, torch.zeros(1, 2), handle, handle, (9, 9), 2).moved.tolist() == [
        [5, 5]
    ]
    features[1] = torch.nan
    assert function(features, torch.zeros(1, 2), handle, handle, (9, 9), 2).moved.tolist() == [
        [2, 2]
    ]


@ALL
def test_memory_order_does_not_matter(function: Track) -> None:
    features, origins, handles = case((16, 10, 12), (40, 48), points=6, seed=5)
    expected = function(features, origins, handles, handles, (40, 48), 3).moved
    last = features[None].contiguous(memory_format=torch.channels_last)[0]
    assert last.stride(0) == 1
    for same in (
        last,
        torch.cat([features, features])[:16],
        features.flip(2).flip(2),
        features.transpose(1, 2).contiguous().mT,
    ):
        assert torch.equal(function(same, origins, handles, handles, (40, 48), 3).moved, expected)
    points = handles.T.contiguous().T
    moved = function(features, origins.T.contiguous().T, points, points, (40, 48), 3).moved
    assert torch.equal(moved, expected)


@ALL
def test_no_points_and_no_window(function: Track) -> None:
    features, origins, handles = case((4, 5, 5), (20, 20), points=2, seed=2)
    none = function(features, origins[:0], handles[:0], handles[:0], (20, 20), 3)
    assert (none.moved.shape, none.reached.shape, bool(none.all_reached)) == ((0, 2), (0,), True)
    assert torch.equal(function(features, origins, handles, handles, (20, 20), 0).moved, handles)


@BOTH
def test_many_points(function: Track) -> None:
    features, origins, handles = case((8, 16, 16), (64, 64), points=300, seed=4)
    moved = function(features, origins, handles, handles, (64, 64), 2).moved
    assert moved.tolist() == searched(features, origins, handles, (64, 64), 2)


@ALL
def test_inputs_that_carry_gradients(function: Track) -> None:
    features, origins, handles = case((4, 5, 5), (20, 20), points=2, seed=2)
    expected = function(features, origins, handles, handles, (20, 20), 2)
    tracked = function(
        features.requires_grad_(), origins.requires_grad_(), handles, handles, (20, 20), 2
    )
    for now, before in zip(tracked, expected, strict=True):
        assert torch.equal(now, before)
        assert not now.requires_grad


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_without_rounding_to_it(
    function: Track, dtype: torch.dtype
) -> None:
    features, origins, handles = case((40, 12, 10), (48, 40), points=8, seed=6)
    features, origins = features.to(dtype), origins.to(dtype)
    last = features[None].contiguous(memory_format=torch.channels_last)[0]
    expected = track(features.float(), origins.float(), handles, handles, (48, 40), 3)
    for inputs in ((features, origins), (last, origins), (features, origins.float())):
        for now, wanted in zip(
            function(*inputs, handles, handles, (48, 40), 3), expected, strict=True
        ):
            assert torch.equal(now, wanted)


def test_float64_is_computed_in_float64() -> None:
    """A difference that float32 cannot hold decides."""
    features = torch.ones(1, 3, 3, dtype=torch.float64)
    features[0, 2, 1] -= 1e-12
    handle = torch.tensor([[1, 1]])
    moved = track(features, torch.zeros(1, 1, dtype=torch.float64), handle, handle, (3, 3), 1).moved
    assert moved.tolist() == [[2, 1]]


def test_every_float16_is_read_as_it_is() -> None:
    """Every finite value, subnormal ones too, stands between its neighbours and is found.

    One that is read wrong by half a unit would not be.
    """
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.float16)
    row = values[values.isfinite()].unique()[None, None]
    handles = torch.stack(
        [torch.zeros(row.shape[2], dtype=torch.int64), torch.arange(row.shape[2])], dim=1
    )
    assert row.shape[2] == 2 * 31 * 1024 - 1  # both zeros are one
    assert torch.equal(
        track(row, row[0].T.float(), handles, handles, (1, row.shape[2]), 2).moved, handles
    )


@ALL
def test_reached_is_strictly_nearer_than_two(function: Track) -> None:
    features, origins, _ = case((3, 8, 8), (16, 16), points=7, seed=8)
    handles = torch.tensor([[4, 4]]).expand(7, 2).contiguous()
    away = torch.tensor([[0, 0], [1, 1], [-1, 1], [0, 2], [-2, 0], [2, 2], [1 << 40, -(1 << 40)]])
    near = torch.tensor([True, True, True, False, False, False, False])
    moved, reached, all_reached = function(features, origins, handles, handles + away, (16, 16), 0)
    assert torch.equal(moved, handles)
    assert torch.equal(reached, near)
    assert not all_reached
    for there in (slice(0, 3), slice(0, 1)):
        arrived = function(
            features, origins[there], handles[there], (handles + away)[there], (16, 16), 0
        )
        assert arrived.reached.all()
        assert arrived.all_reached
        assert arrived.all_reached.shape == ()


@ALL
def test_reached_is_of_where_the_handle_has_moved(function: Track) -> None:
    features = torch.zeros(2, 9, 9)
    features[:, 6, 2] = 1
    handles, targets = torch.tensor([[4, 4], [6, 3]]), torch.tensor([[6, 1], [6, 5]])
    moved, reached, all_reached = function(features, torch.ones(2, 2), handles, targets, (9, 9), 2)
    assert moved.tolist() == [[6, 2], [6, 2]]
    assert reached.tolist() == [True, False]
    assert not all_reached


@pytest.mark.parametrize("radius", [4, 9])
def test_triton_window_of_more_than_one_block(radius: int) -> None:
    """81 and 361 positions, 64 at a time: found in the last block, and in the first."""
    features, origins, handles = case((33, 9, 14), (20, 29), points=3, seed=9)
    assert on_gpu(features, origins, handles, handles, (20, 29), radius).moved.tolist() == searched(
        features, origins, handles, (20, 29), radius
    )
    flat = on_gpu(torch.ones(33, 9, 14), origins, handles, handles, (20, 29), radius).moved
    assert torch.equal(flat, (handles - radius).clamp(min=0))


def test_triton_refuses_what_32_bits_cannot_count() -> None:
    features, handles = torch.zeros(1, 1, 2), torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="too large for 32 bits"):
        on_gpu(features, torch.zeros(1, 1), handles, handles, (1, 1 << 29), 1)


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
    resolution=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    radius=st.integers(0, 4),
    points=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    last=st.booleans(),
    seed=st.integers(0, 999),
)
def test_triton_equals_native(
    size: tuple[int, int, int],
    resolution: tuple[int, int],
    radius: int,
    points: int,
    dtype: torch.dtype,
    last: bool,
    seed: int,
) -> None:
    """Both interpolate alike but add channels in another order: distances must be equal."""
    features, origins, handles = case(size, resolution, points, seed, outside=7)
    features = features.to(dtype)
    if last:
        features = features[None].contiguous(memory_format=torch.channels_last)[0]
    targets = handles + torch.randint(
        -2, 3, handles.shape, generator=torch.Generator().manual_seed(seed)
    )
    large = upsampled(features.double(), resolution)
    found = [
        function(features, origins, handles, targets, resolution, radius)
        for function in (track, on_gpu)
    ]
    far = [(large[:, one.moved[:, 0], one.moved[:, 1]].T - origins).abs().sum(1) for one in found]
    torch.testing.assert_close(far[0], far[1], rtol=0, atol=1e-5 * size[0])
    for one in found:
        apart = (one.moved - targets).double().norm(dim=1)
        assert torch.equal(one.reached, apart < 2)
        assert bool(one.all_reached) == bool((apart < 2).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_operator_keeps_pytorchs_rules(dtype: torch.dtype) -> None:
    features, origins, handles = case((4, 5, 5), (20, 20), points=2, seed=2)
    given = (features.to(dtype), origins.to(dtype), handles, handles + 1, 20, 20, 3)
    torch.library.opcheck(torch.ops.dragnoise.track_points.default, given)


def test_compiles_without_a_break() -> None:
    features, origins, handles = case((4, 5, 6), (20, 24), points=2, seed=2)
    compiled = torch.compile(track, fullgraph=True, backend="aot_eager")
    expected = track(features, origins, handles, handles, (20, 24), 3)
    for now, wanted in zip(
        compiled(features, origins, handles, handles, (20, 24), 3), expected, strict=True
    ):
        assert torch.equal(now, wanted)


def test_shapes_without_values() -> None:
    features, origins, handles = (
        tensor.to("meta") for tensor in case((4, 5, 5), (20, 20), points=3, seed=2)
    )
    moved, reached, all_reached = track(features, origins, handles, handles, (20, 20), 3)
    assert (moved.shape, moved.dtype) == ((3, 2), torch.int64)
    assert (reached.shape, all_reached.shape, reached.dtype, all_reached.dtype) == (
        (3,),
        (),
        torch.bool,
        torch.bool,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_equals_the_cpu_and_never_waits(dtype: torch.dtype) -> None:
    features, origins, handles = case((64, 16, 16), (64, 64), points=20, seed=7)
    features, origins = features.to(dtype), origins.to(dtype)
    expected = track(features, origins, handles, handles + 1, (64, 64), 3)
    features, origins, handles, targets = (
        one.cuda() for one in (features, origins, handles, handles + 1)
    )
    track(features, origins, handles, targets, (64, 64), 3)  # compiled before: that may wait
    with never_waiting():
        found = track(features, origins, handles, targets, (64, 64), 3)
    for now, wanted in zip(found, expected, strict=True):
        assert torch.equal(now.cpu(), wanted)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.zeros(2, 3)}, r"features must be \[C, h, w\]"),
        ({"features": torch.zeros(2, 0, 3)}, r"features must be \[C, h, w\] floats with no side 0"),
        ({"features": torch.zeros(2, 3, 3).int()}, r"features must be \[C, h, w\] floats"),
        (
            {"handles": torch.zeros(1, 2)},
            r"handles must be \[N, 2\] int64, got \[1, 2\] torch.float32",
        ),
        ({"handles": torch.zeros(1, 3, dtype=torch.int64)}, r"handles must be \[N, 2\]"),
        (
            {"targets": torch.zeros(2, 2, dtype=torch.int64)},
            r"targets must be \[1, 2\] int64, got \[2, 2\]",
        ),
        (
            {"targets": torch.zeros(1, 2)},
            r"targets must be \[1, 2\] int64, got \[1, 2\] torch.float32",
        ),
        ({"origins": torch.zeros(2, 2)}, r"origins must be \[1, 2\]"),
        ({"origins": torch.zeros(1, 2, device="meta")}, "devices differ"),
        ({"resolution": (0, 4)}, "resolution must be at least"),
        ({"radius": -1}, "radius at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, object], message: str) -> None:
    inputs: dict[str, object] = {
        "features": torch.zeros(2, 3, 3),
        "origins": torch.zeros(1, 2),
        "handles": torch.zeros(1, 2, dtype=torch.int64),
        "targets": torch.zeros(1, 2, dtype=torch.int64),
        "resolution": (9, 9),
        "radius": 1,
    }
    with pytest.raises(ValueError, match=message):
        track(**(inputs | changed))  # type: ignore[arg-type]


class TestNative:
    """The module by itself: it checks every argument before it touches memory."""

    features = np.zeros((2, 3, 3), np.float32)
    references = np.zeros((1, 2), np.float32)
    handles = np.zeros((1, 2), np.int64)

    @staticmethod
    def track(
        features: Any,
        references: Any,
        handles: Any,
        targets: Any,
        resolution: tuple[int, int],
        radius: int,
    ) -> Any:
        return _native.track_points(features, references, handles, targets, resolution, radius, 2.0)

    def test_takes_numpy_and_any_strides(self) -> None:
        for features in (self.features, self.features.astype(np.float16)):
            moved, reached = self.track(
                features[:, ::-1, ::2], self.references, self.handles, self.handles, (9, 9), 1
            )
            assert (moved.dtype, reached.dtype) == (np.int64, np.bool_)
            assert (moved.tolist(), reached.tolist()) == ([[0, 0]], [True])

    def test_refuses_sizes(self) -> None:
        with pytest.raises(
            ValueError, match=r"references: expected \[1, 2\] \(handles, channels\), got \[1, 3\]"
        ):
            self.track(
                self.features, np.zeros((1, 3), np.float32), self.handles, self.handles, (9, 9), 1
            )
        with pytest.raises(ValueError, match=r"targets: expected \[1, 2\], got \[0, 2\]"):
            self.track(self.features, self.references, self.handles, self.handles[:0], (9, 9), 1)
        with pytest.raises(ValueError, match=r"features: no side may be 0, got \[2, 0, 3\]"):
            self.track(self.features[:, :0], self.references, self.handles, self.handles, (9, 9), 1)
        with pytest.raises(
            ValueError, match=r"resolution: must be at least \(1, 1\), got \(9, 0\)"
        ):
            self.track(self.features, self.references, self.handles, self.handles, (9, 0), 1)
        with pytest.raises(ValueError, match="radius: must not be negative, got -1"):
            self.track(self.features, self.references, self.handles, self.handles, (9, 9), -1)

    def test_refuses_types_rather_than_converting_them(self) -> None:
        for features, handles in (
            (self.features.astype(np.float64), self.handles),
            (self.features.astype(np.int16), self.handles),
            (self.features[0], self.handles),
            (self.features, self.handles.astype(np.int32)),
            (self.features, np.zeros((1, 4), np.int64)[:, ::2]),
        ):
            with pytest.raises(TypeError):
                self.track(features, self.references, handles, self.handles, (9, 9), 1)

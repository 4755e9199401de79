"""The motion loss equals the one on the upsampled map, value and gradient; the kernels equal it.

It is defined where the published code fails.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dragnoise.kernels import _native, patch_motion
from dragnoise.kernels.patch_motion import (
    REACHED,
    TIE,
    distances,
    motion_loss,
    patches,
    reference,
    reference_loss,
)
from tolerances import assert_close
from waiting import never_waiting

Loss = Callable[[Tensor, Tensor, Tensor, tuple[int, int], int], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor, tuple[int, int], int]
BOTH = pytest.mark.parametrize(
    "function", [motion_loss, reference_loss], ids=["operator", "reference"]
)
FORMATS = pytest.mark.parametrize(
    "memory_format",
    [torch.contiguous_format, torch.channels_last],
    ids=["contiguous", "channels_last"],
)


_ROUNDING = 1e-12
"""Difference of features of size 1 that in float64 is rounding, not one of features."""


def wide_dead_zone() -> AbstractContextManager[object]:
    """Let float64's rounding count as zero: it lies far below any difference of features.

    The rows beside a border repeat it when a map is enlarged, so that both patches may be the same
    but for rounding, which depends on the processor's instructions.
    """
    return mock.patch.object(patch_motion, "TIE", _ROUNDING / torch.finfo(torch.float64).eps)


def upsampled_loss(
    features: Tensor, handles: Tensor, targets: Tensor, size: tuple[int, int], radius: int
) -> Tensor:
    """Return the loss on the whole upsampled map, point by point; for patches that stay inside.

    Features are float64; a difference of rounding is none.
    """
    full = F.interpolate(features[None], size, mode="bilinear")[0]
    loss = full.new_zeros(())
    for handle, target in zip(handles, targets, strict=True):
        way = (target - handle).float()
        if way.norm() < 2:
            continue
        place = (handle.float() + way / way.norm()).to(full.dtype)
        corner = place.floor().long()
        part = place - corner
        k = 2 * radius + 1
        here = full[:, handle[0] - radius :, handle[1] - radius :][:, :k, :k].detach()
        block = full[:, corner[0] - radius :, corner[1] - radius :][:, : k + 1, : k + 1]
        rows = block[:, :k] * (1 - part[0]) + block[:, 1:] * part[0]
        moved = rows[:, :, :k] * (1 - part[1]) + rows[:, :, 1:] * part[1]
        difference = moved - here
        difference = difference.masked_fill(difference.detach().abs() < _ROUNDING, 0)
        loss = loss + k * k * difference.abs().mean()
    return loss


@BOTH
@given(
    seed=st.integers(0, 10_000),
    small=st.tuples(st.integers(5, 17), st.integers(5, 17)),
    size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    count=st.integers(1, 5),
    radius=st.integers(0, 3),
)
def test_equals_the_upsampled_map(
    function: Loss,
    seed: int,
    small: tuple[int, int],
    size: tuple[int, int],
    count: int,
    radius: int,
) -> None:
    torch.manual_seed(seed)
    features = torch.randn(6, *small, dtype=torch.float64)
    inside = torch.tensor(size) - 2 * radius - 4
    handles = (torch.rand(count, 2) * inside).long() + radius + 2
    targets = (torch.rand(count, 2) * torch.tensor(size)).long()
    got, expected = features.clone().requires_grad_(), features.clone().requires_grad_()
    with wide_dead_zone():
        loss = function(got, handles, targets, size, radius)
    wanted = upsampled_loss(expected, handles, targets, size, radius)
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
    if wanted.requires_grad:
        (there,) = torch.autograd.grad(wanted, expected)
        (here,) = torch.autograd.grad(loss, got)
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precisions_and_layouts(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Low precision is only the map's: the loss is that of the rounded map, computed in float32."""
    torch.manual_seed(1)
    features = torch.randn(1, 8, 12, 10).to(dtype).to(memory_format=memory_format)[0]
    handles, targets = torch.tensor([[9, 9], [4, 12]]), torch.tensor([[15, 12], [20, 3]])
    exact = motion_loss(features.double(), handles, targets, (24, 20), 1)
    leaf = features.detach().requires_grad_()
    loss = motion_loss(leaf, handles, targets, (24, 20), 1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.dtype == dtype
    assert gradient.abs().max() > 0


@BOTH
def test_near_points_do_not_count(function: Loss) -> None:
    """Strictly nearer than 2: left out. At 2: counted."""
    torch.manual_seed(2)
    features = torch.randn(4, 8, 8)
    one = torch.tensor([[8, 8]])
    assert function(features, one, one, (16, 16), 1) == 0
    assert function(features, one, one + torch.tensor([1, 1]), (16, 16), 1) == 0
    far = function(features, one, one + torch.tensor([2, 0]), (16, 16), 1)
    assert far > 0
    both = function(features, one.repeat(2, 1), torch.tensor([[10, 8], [9, 8]]), (16, 16), 1)
    assert both == far


@BOTH
@pytest.mark.parametrize("corner", [(0, 0), (0, 15), (15, 0), (15, 15), (7, 0), (15, 8)])
def test_borders_clamp(function: Loss, corner: tuple[int, int]) -> None:
    """Every handle on the border, every direction: finite, and outside the border is repeated."""
    torch.manual_seed(3)
    features = torch.randn(4, 8, 8)
    handle = torch.tensor([corner])
    for way in ((-9, 0), (9, 0), (0, -9), (0, 9), (-6, 7)):
        leaf = features.clone().requires_grad_()
        loss = function(leaf, handle, handle + torch.tensor(way), (16, 16), 2)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    padded = F.pad(
        F.interpolate(features[None], (16, 16), mode="bilinear"), (2, 2, 2, 2), mode="replicate"
    )[0]
    row, column = corner
    torch.testing.assert_close(
        patches(features, handle, (16, 16), 2)[0], padded[:, row : row + 5, column : column + 5]
    )


@BOTH
def test_ties_have_no_gradient(function: Loss) -> None:
    """Outwards at the border both patches are the same: loss and gradient are exactly 0.

    The gradient is not the sign of rounding noise.
    """
    torch.manual_seed(4)
    for _ in range(20):
        leaf = (torch.randn(4, 8, 8) * 10 ** torch.empty(1).uniform_(-3, 3)).requires_grad_()
        handle = torch.tensor([[0, 7]])
        loss = function(leaf, handle, torch.tensor([[-5, 7]]), (16, 16), 0)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss == 0
        assert (gradient == 0).all()


def test_a_constant_map_has_no_gradient() -> None:
    """The reference's weights need not sum to one, so that there rounding might move the points."""
    constant = torch.full((4, 9, 7), 0.3).requires_grad_()
    loss = motion_loss(constant, torch.tensor([[9, 9]]), torch.tensor([[15, 4]]), (25, 19), 1)
    (gradient,) = torch.autograd.grad(loss, constant)
    assert (gradient == 0).all()


def case(
    size: tuple[int, int, int],
    resolution: tuple[int, int],
    points: int,
    radius: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Inputs:
    """Handles up to two positions outside the map, targets up to nine."""
    generator = torch.Generator().manual_seed(seed)
    handles, targets = (
        torch.stack(
            [
                torch.randint(-out, side + out, (points,), generator=generator)
                for side in resolution
            ],
            dim=1,
        )
        for out in (2, 9)
    )
    features = (
        torch.randn(1, *size, generator=generator).to(dtype).to(memory_format=memory_format)[0]
    )
    return features, handles, targets, resolution, radius


def value_and_gradient(function: Loss, inputs: Inputs) -> tuple[Tensor, Tensor]:
    leaf = inputs[0].detach().requires_grad_()
    loss = function(leaf, *inputs[1:])
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def exactly(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the reference's loss and gradient in float64, with a dead zone far above its rounding.

    If the border makes both patches the same, the kernels' difference is zero to the last bit. The
    reference's is noise, in float32 at times of more than `TIE` units (which units depends on the
    processor's instructions); in float64 noise and differences are far apart.
    """
    with wide_dead_zone():
        return reference(inputs[0].detach().double(), *inputs[1:])


def doubtful(inputs: Inputs) -> bool:
    """Whether some difference is so small that float32's rounding decides its sign, yet not zero.

    Float64 tells the two apart.
    """
    features, handles, targets, resolution, radius = inputs
    way = (targets - handles).float()
    exact = features.double()
    centres = handles + way / distances(handles, targets).clamp(min=REACHED)[:, None]
    shifted, source = (patches(exact, at, resolution, radius) for at in (centres, handles))
    difference = (shifted - source).abs()
    return bool(((difference > 1e-12) & (difference < 2e-6)).any())


def at_the_edge_of_the_dead_zone(units: int) -> Inputs:
    """Return a map of its own resolution and a step straight down.

    Every difference is `units` of rounding of 1, and computed without any rounding.
    """
    features = torch.ones(3, 9, 9)
    features[:, 1::2] += units * torch.finfo(torch.float32).eps
    return features, torch.tensor([[4, 4]]), torch.tensor([[8, 4]]), (9, 9), 1


@BOTH
def test_two_units_of_rounding_are_a_tie(function: Loss) -> None:
    """Two units of each patch's size, that is 4 where both are 1; 5 are a difference."""
    loss, gradient = value_and_gradient(function, at_the_edge_of_the_dead_zone(4))
    assert loss == 0
    assert (gradient == 0).all()
    loss, gradient = value_and_gradient(function, at_the_edge_of_the_dead_zone(5))
    assert loss == pytest.approx(9 * 5 * torch.finfo(torch.float32).eps)
    assert gradient.abs().sum() == pytest.approx(9)


@given(
    size=st.tuples(st.integers(1, 37), st.integers(1, 19), st.integers(1, 19)),
    resolution=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    points=st.integers(0, 9),
    radius=st.integers(0, 4),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
@example((3, 2, 10), (32, 3), 3, 4, 3, torch.float32, torch.contiguous_format)
def test_native_equals_the_reference(
    size: tuple[int, int, int],
    resolution: tuple[int, int],
    points: int,
    radius: int,
    seed: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> None:
    """Any ratio, up or down; patches over every border; maps of one row; no points, and many.

    The example is one in which the reference in float32 takes noise at a border for a difference.
    """
    inputs = case(size, resolution, points, radius, seed, dtype, memory_format)
    assume(not doubtful(inputs))
    loss, gradient = value_and_gradient(motion_loss, inputs)
    wanted, slope = exactly(inputs)
    assert_close(loss, wanted)
    assert_close(gradient, slope)
    assert gradient.dtype == dtype
    assert gradient.stride() == inputs[0].stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_references_gradient_is_autograds(dtype: torch.dtype) -> None:
    inputs = case((5, 9, 6), (36, 24), 3, 1, 7, dtype)
    loss, gradient = reference(*inputs)
    wanted, slope = value_and_gradient(reference_loss, inputs)
    assert_close(loss, wanted)
    assert_close(gradient, slope)
    assert gradient.dtype == dtype
    assert slope.abs().max() > 0


def test_many_points_in_one_place() -> None:
    """Their gradients add up in float32: rounded to bfloat16 once, not three hundred times."""
    features, handles, targets, resolution, radius = case(
        (24, 16, 16), (64, 64), 1, 1, seed=3, dtype=torch.bfloat16
    )
    many = (features, handles.repeat(300, 1), targets.repeat(300, 1), resolution, radius)
    loss, gradient = value_and_gradient(motion_loss, many)
    wanted, slope = exactly(many)
    assert_close(loss, wanted)
    torch.testing.assert_close(gradient.double(), slope, rtol=2**-8, atol=1e-6)


@BOTH
def test_far_outside_means_the_border(function: Loss) -> None:
    """No overflow; both patches are the same corner."""
    features, *_ = case((4, 6, 6), (24, 20), points=0, radius=1, seed=1)
    handles = torch.tensor([[-1000, 5000], [1 << 40, -(1 << 40)], [60, 60]])
    loss, gradient = value_and_gradient(function, (features, handles, handles.flip(0), (24, 20), 1))
    assert loss == 0
    assert (gradient == 0).all()


def test_memory_order_does_not_matter() -> None:
    inputs = case((24, 10, 12), (40, 48), points=6, radius=1, seed=5)
    features = inputs[0]
    loss, gradient = value_and_gradient(motion_loss, inputs)
    last = features[None].contiguous(memory_format=torch.channels_last)[0]
    turned = features.transpose(1, 2).contiguous().mT
    for same in (
        last,
        turned,
        torch.cat([features, features])[::2],
        features.repeat_interleave(2, dim=2)[:, :, ::2],
    ):
        wanted = exactly((same, *inputs[1:]))
        got = value_and_gradient(motion_loss, (same, *inputs[1:]))
        assert_close(got[0], wanted[0])
        assert_close(got[1], wanted[1])
    for same in (last, turned):
        again, slope = value_and_gradient(motion_loss, (same, *inputs[1:]))
        assert torch.equal(again, loss)
        assert torch.equal(slope, gradient)
        assert slope.stride() == same.stride()
    columns = (inputs[1].T.contiguous().T, inputs[2].T.contiguous().T)
    assert torch.equal(motion_loss(features, *columns, *inputs[3:]), loss)


def test_backward_scales_the_gradient_and_may_run_twice() -> None:
    leaf, handles, targets, resolution, radius = case(
        (6, 8, 8), (32, 32), points=2, radius=1, seed=0
    )
    loss = motion_loss(leaf.requires_grad_(), handles, targets, resolution, radius)
    once, thrice = (
        torch.autograd.grad(factor * loss, leaf, retain_graph=True)[0] for factor in (1.0, 3.0)
    )
    assert once.abs().max() > 0
    assert_close(thrice, 3 * once)
    assert not torch.ops.dragnoise.patch_motion(leaf, handles, targets, 32, 32, 1)[1].requires_grad


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_operator_keeps_pytorchs_rules(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    features, handles, targets, resolution, radius = case(
        (6, 8, 8), (32, 32), 2, 1, 0, dtype, memory_format
    )
    for given_features in (features, features.clone().requires_grad_()):
        torch.library.opcheck(
            torch.ops.dragnoise.patch_motion.default,
            (given_features, handles, targets, *resolution, radius),
        )


@FORMATS
def test_compiles_without_a_graph_break(memory_format: torch.memory_format) -> None:
    inputs = case((6, 8, 8), (32, 32), 2, 1, 0, memory_format=memory_format)
    compiled = torch.compile(motion_loss, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(
        value_and_gradient(compiled, inputs), value_and_gradient(motion_loss, inputs), strict=True
    ):
        assert torch.equal(got, wanted)


@FORMATS
@pytest.mark.parametrize("device", ["meta", "fake", "fake-cuda"])
def test_nothing_is_computed_on_fake_tensors(
    device: str, memory_format: torch.memory_format
) -> None:
    """Shapes, dtypes and memory order are right where there are no values."""
    real = case((640, 64, 64), (256, 256), 3, 1, 0, torch.bfloat16, memory_format)
    with FakeTensorMode() if "fake" in device else torch.device("meta"):
        place = {"meta": "meta", "fake": "cpu", "fake-cuda": "cuda"}[device]
        features = torch.empty_strided(
            real[0].shape, real[0].stride(), dtype=torch.bfloat16, device=place
        )
        handles, targets = (torch.empty(3, 2, dtype=torch.int64, device=place) for _ in range(2))
        outcomes = [torch.ops.dragnoise.patch_motion(features, handles, targets, 256, 256, 1)]
        if device != "fake-cuda":  # autograd would ask for a real device
            outcomes.append(
                value_and_gradient(motion_loss, (features, handles, targets, *real[3:]))
            )
    for loss, gradient in outcomes:
        assert (loss.shape, loss.dtype) == ((), torch.float32)
        assert (gradient.shape, gradient.dtype) == (features.shape, torch.bfloat16)
        assert gradient.stride() == real[0].stride()
        assert gradient.device.type == features.device.type


class TestTriton:
    """The GPU kernel itself, under Triton's interpreter."""

    @staticmethod
    def launched(inputs: Inputs) -> tuple[Tensor, Tensor]:
        if torch.cuda.is_available():
            pytest.skip("not interpreted where there is a device: the gpu tests run it there")
        pytest.importorskip("triton")
        from dragnoise.kernels.gpu.patch_motion import launch

        return launch(*inputs, REACHED, TIE)

    @pytest.mark.parametrize(
        ("size", "resolution", "points", "radius"),
        [
            pytest.param((6, 9, 7), (36, 28), 3, 1, id="two-tiles-a-quarter"),
            pytest.param((19, 8, 8), (32, 32), 2, 1, id="two-groups-of-channels"),
            pytest.param((3, 9, 12), (31, 40), 4, 0, id="one-position-odd-ratios"),
            pytest.param((4, 7, 9), (13, 14), 2, 2, id="25-positions-in-two-blocks"),
            pytest.param((3, 8, 8), (8, 8), 3, 1, id="the-same-size"),
            pytest.param((2, 17, 12), (9, 8), 2, 1, id="shrinking"),
            pytest.param((1, 1, 9), (5, 20), 2, 1, id="one-channel-one-row"),
            pytest.param((2, 3, 3), (12, 12), 0, 1, id="no-points"),
        ],
    )
    def test_equals_the_reference(
        self, size: tuple[int, int, int], resolution: tuple[int, int], points: int, radius: int
    ) -> None:
        inputs = case(size, resolution, points, radius, seed=sum(size))
        assert not doubtful(inputs)
        loss, gradient = self.launched(inputs)
        wanted, slope = exactly(inputs)
        assert_close(loss, wanted)
        assert_close(gradient, slope)
        assert points == 0 or slope.abs().max() > 0

    @FORMATS
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_precisions_and_layouts(
        self, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> None:
        inputs = case((5, 9, 6), (36, 24), 3, 1, 7, dtype, memory_format)
        assert not doubtful(inputs)
        loss, gradient = self.launched(inputs)
        wanted, slope = exactly(inputs)
        assert loss.dtype == torch.float32
        assert_close(loss, wanted)
        assert gradient.dtype == dtype
        assert gradient.stride() == inputs[0].stride()
        assert_close(gradient, slope)

    def test_any_strides(self) -> None:
        whole = case((6, 9, 14), (36, 28), 3, 1, seed=22)
        inputs: Inputs = (whole[0][::2, :, ::2], *whole[1:])
        loss, gradient = self.launched(inputs)
        wanted, slope = exactly(inputs)
        assert_close(loss, wanted)
        assert_close(gradient, slope)

    def test_near_points_do_not_count(self) -> None:
        features, *_ = case((4, 8, 8), (16, 16), 0, 1, seed=2)
        handles, targets = (
            torch.tensor([[8, 8], [8, 8], [3, 3]]),
            torch.tensor([[9, 9], [10, 8], [3, 3]]),
        )
        loss, gradient = self.launched((features, handles, targets, (16, 16), 1))
        alone, slope = self.launched((features, handles[1:2], targets[1:2], (16, 16), 1))
        assert alone > 0
        assert torch.equal(loss, alone)
        assert torch.equal(gradient, slope)

    def test_ties_have_no_gradient(self) -> None:
        features = 1000 * case((4, 8, 8), (16, 16), 0, 0, seed=4)[0]
        outwards = torch.tensor([[0, 7], [15, 15], [6, 0], [1 << 40, -5]])
        targets = torch.tensor([[-5, 7], [30, 40], [6, -2], [0, -9]])
        loss, gradient = self.launched((features, outwards, targets, (16, 16), 0))
        assert loss == 0
        assert (gradient == 0).all()

    def test_two_units_of_rounding_are_a_tie(self) -> None:
        assert self.launched(at_the_edge_of_the_dead_zone(4))[0] == 0
        loss, gradient = self.launched(at_the_edge_of_the_dead_zone(5))
        assert loss == pytest.approx(9 * 5 * torch.finfo(torch.float32).eps)
        assert gradient.abs().sum() == pytest.approx(9)

    def test_refuses_what_32_bits_cannot_hold(self) -> None:
        features, handles, targets, _, radius = case((1, 2, 2), (8, 8), 1, 1, seed=0)
        with pytest.raises(ValueError, match="too large for 32 bits"):
            self.launched((features, handles, targets, (8, 2**30), radius))


@pytest.mark.gpu
@FORMATS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_cuda_equals_the_cpu_and_never_waits(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    inputs = case((70, 32, 40), (128, 160), 20, 1, 11, dtype, memory_format)
    assert not doubtful(inputs)
    wanted, slope = reference(*inputs) if dtype == torch.float64 else exactly(inputs)
    there: Inputs = (inputs[0].cuda(), inputs[1].cuda(), inputs[2].cuda(), *inputs[3:])
    with never_waiting():
        loss, gradient = value_and_gradient(motion_loss, there)
        again = value_and_gradient(motion_loss, there)
    assert gradient.stride() == there[0].stride()
    assert torch.equal(loss, again[0])
    assert torch.equal(gradient, again[1])
    assert_close(loss.cpu(), wanted, torch.float32)
    assert_close(gradient.cpu(), slope, torch.float32 if dtype == torch.float64 else dtype)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.zeros(2, 3)}, r"features must be \[C, h, w\]"),
        ({"features": torch.zeros(2, 0, 3)}, r"features must be \[C, h, w\] floats with no side 0"),
        ({"features": torch.zeros(2, 3, 3, dtype=torch.int64)}, r"features must be .* torch.int64"),
        (
            {"handles": torch.zeros(1, 2)},
            r"handles must be \[N, 2\] int64, got \[1, 2\] torch.float32",
        ),
        ({"targets": torch.zeros(1, 3, dtype=torch.int64)}, r"targets must be \[N, 2\]"),
        (
            {"targets": torch.zeros(2, 2, dtype=torch.int64)},
            "every handle has a target: got 1 handles and 2 targets",
        ),
        ({"targets": torch.zeros(1, 2, dtype=torch.int64, device="meta")}, "devices differ"),
        ({"resolution": (0, 4)}, "resolution must be at least"),
        ({"radius": -1}, "radius at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, object], message: str) -> None:
    inputs: dict[str, object] = {
        "features": torch.zeros(2, 3, 3),
        "handles": torch.zeros(1, 2, dtype=torch.int64),
        "targets": torch.zeros(1, 2, dtype=torch.int64),
        "resolution": (9, 9),
        "radius": 1,
    }
    with pytest.raises(ValueError, match=message):
        motion_loss(**(inputs | changed))  # type: ignore[arg-type]


class TestNative:
    """The module by itself: it checks every argument before it touches memory."""

    features = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    handles = np.array([[4, 4]])
    targets = np.array([[4, 8]])

    def run(self, features: NDArray[Any], gradient: NDArray[Any], **changed: Any) -> float:
        points: dict[str, Any] = {
            "handles": self.handles,
            "targets": self.targets,
            "resolution": (9, 9),
            "radius": 1,
        }
        return _native.patch_motion(
            features, gradient=gradient, reached=2.0, tie=2.0, **(points | changed)
        )

    def test_adds_to_a_gradient_of_any_strides(self) -> None:
        plain, turned = (
            np.zeros((2, 3, 3), np.float32),
            np.ones((3, 3, 2), np.float32).transpose(2, 0, 1)[:, ::-1],
        )
        # One supervision pixel to the right is a third of a small column, whose features differ
        # by one; 9 positions.
        assert self.run(self.features, plain) == pytest.approx(9 / 3)
        assert self.run(self.features[:, ::-1], turned) == pytest.approx(9 / 3)
        assert plain.sum() == pytest.approx(9)
        np.testing.assert_allclose(turned, 1 + plain[:, ::-1], rtol=1e-6)

    def test_refuses_sizes(self) -> None:
        gradient = np.zeros((2, 3, 3), np.float32)
        with pytest.raises(ValueError, match=r"features: no side may be 0, got \[2, 0, 3\]"):
            self.run(self.features[:, :0], gradient)
        with pytest.raises(
            ValueError, match=r"gradient: expected \[2, 3, 3\] as the features, got \[2, 2, 3\]"
        ):
            self.run(self.features, gradient[:, 1:])
        with pytest.raises(ValueError, match="targets: expected as many as handles, 1, got 2"):
            self.run(self.features, gradient, targets=np.zeros((2, 2), np.int64))
        with pytest.raises(
            ValueError, match=r"resolution: must be at least \(1, 1\), got \(9, 0\)"
        ):
            self.run(self.features, gradient, resolution=(9, 0))
        with pytest.raises(ValueError, match="radius: must not be negative, got -1"):
            self.run(self.features, gradient, radius=-1)

    def test_refuses_types_rather_than_converting_them(self) -> None:
        gradient = np.zeros((2, 3, 3), np.float32)
        fixed = np.zeros((2, 3, 3), np.float32)
        fixed.flags.writeable = False
        for features, into in (
            (self.features.astype(np.float64), gradient),
            (self.features[0], gradient),
            (self.features, gradient.astype(np.float64)),
            (self.features, fixed),
        ):
            with pytest.raises(TypeError):
                self.run(features, into)
        with pytest.raises(TypeError):
            self.run(self.features, gradient, handles=self.handles.astype(np.int32))

"""The motion loss equals the one on the upsampled map, value and gradient, and is defined where the published code fails."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dragnoise.kernels.patch_motion import motion_loss, patches


def upsampled_loss(features: Tensor, handles: Tensor, targets: Tensor, size: tuple[int, int], radius: int) -> Tensor:
    """The formula on the whole upsampled map, point by point; only for patches that stay inside."""
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
        loss = loss + k * k * (moved - here).abs().mean()
    return loss


@given(
    seed=st.integers(0, 10_000),
    small=st.tuples(st.integers(5, 17), st.integers(5, 17)),
    size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    count=st.integers(1, 5),
    radius=st.integers(0, 3),
)
def test_equals_the_upsampled_map(
    seed: int, small: tuple[int, int], size: tuple[int, int], count: int, radius: int
) -> None:
    torch.manual_seed(seed)
    features = torch.randn(6, *small, dtype=torch.float64)
    inside = torch.tensor(size) - 2 * radius - 4
    handles = (torch.rand(count, 2) * inside).long() + radius + 2
    targets = (torch.rand(count, 2) * torch.tensor(size)).long()
    got, expected = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss, formula = (
        motion_loss(got, handles, targets, size, radius),
        upsampled_loss(expected, handles, targets, size, radius),
    )
    torch.testing.assert_close(loss, formula, rtol=1e-6, atol=1e-6)
    if formula.requires_grad:
        (there,) = torch.autograd.grad(formula, expected)
        (here,) = torch.autograd.grad(loss, got)
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
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


def test_near_points_do_not_count() -> None:
    """Strictly nearer than 2: left out. At 2: counted."""
    torch.manual_seed(2)
    features = torch.randn(4, 8, 8)
    one = torch.tensor([[8, 8]])
    assert motion_loss(features, one, one, (16, 16), 1) == 0
    assert motion_loss(features, one, one + torch.tensor([1, 1]), (16, 16), 1) == 0
    far = motion_loss(features, one, one + torch.tensor([2, 0]), (16, 16), 1)
    assert far > 0
    both = motion_loss(features, one.repeat(2, 1), torch.tensor([[10, 8], [9, 8]]), (16, 16), 1)
    assert both == far


@pytest.mark.parametrize("corner", [(0, 0), (0, 15), (15, 0), (15, 15), (7, 0), (15, 8)])
def test_borders_clamp(corner: tuple[int, int]) -> None:
    """Every handle on the border, every direction: finite, and what leaves the map repeats the border."""
    torch.manual_seed(3)
    features = torch.randn(4, 8, 8)
    handle = torch.tensor([corner])
    for way in ((-9, 0), (9, 0), (0, -9), (0, 9), (-6, 7)):
        leaf = features.clone().requires_grad_()
        loss = motion_loss(leaf, handle, handle + torch.tensor(way), (16, 16), 2)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    padded = F.pad(F.interpolate(features[None], (16, 16), mode="bilinear"), (2, 2, 2, 2), mode="replicate")[0]
    row, column = corner
    torch.testing.assert_close(patches(features, handle, (16, 16), 2)[0], padded[:, row : row + 5, column : column + 5])


def test_ties_have_no_gradient() -> None:
    """Outwards at the border both patches are the same: loss 0 and gradient exactly 0, not the sign of rounding noise."""
    torch.manual_seed(4)
    for _ in range(20):
        leaf = (torch.randn(4, 8, 8) * 10 ** torch.empty(1).uniform_(-3, 3)).requires_grad_()
        handle = torch.tensor([[0, 7]])
        loss = motion_loss(leaf, handle, torch.tensor([[-5, 7]]), (16, 16), 0)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss == 0
        assert (gradient == 0).all()
    constant = torch.full((4, 9, 7), 0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(
        motion_loss(constant, torch.tensor([[9, 9]]), torch.tensor([[15, 4]]), (25, 19), 1), constant
    )
    assert (gradient == 0).all()

"""Pixels that are moved by a field, without a model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dragnoise.engine.drag import warp as drag_warp
from dragnoise.engine.drag.warp import warp

SIZE = (96, 128)
RED = torch.tensor([220, 40, 30], dtype=torch.uint8)


def marked(top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


THING = marked(40, 56, 40, 60)
AREA = marked(16, 80, 16, 112)
HANDLE = torch.tensor([[48.0, 50.0]])


def ground() -> Tensor:
    """Return a picture of smooth shades, uint8 [1, 3, H, W]."""
    rows = torch.arange(SIZE[0])[:, None].expand(SIZE)
    columns = torch.arange(SIZE[1]).expand(SIZE)
    return torch.stack([rows + 90, columns + 60, 200 - rows])[None].to(torch.uint8)


def picture() -> Tensor:
    """Return the ground with a red thing that has a pattern."""
    pixels = ground()
    pixels[0, :, THING] = RED[:, None]
    pixels[0, 2, 44:52, 44:56] = torch.arange(96, dtype=torch.uint8).view(8, 12)
    return pixels


def differences(one: Tensor, other: Tensor, where: Tensor) -> Tensor:
    return (one.int() - other.int()).abs()[0].amax(0)[where]


@pytest.mark.parametrize("grip", [THING, None], ids=["grip", "disc"])
@pytest.mark.parametrize("mask", [AREA, None], ids=["mask", "no mask"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_without_a_drag_it_is_the_pictures_own_bytes(
    grip: Tensor | None, mask: Tensor | None, kind: torch.dtype
) -> None:
    pixels = picture().to(kind)
    same = warp(pixels, HANDLE, HANDLE, mask, grip)
    assert same.dtype == kind
    assert torch.equal(same, pixels)


def test_a_grip_goes_as_it_is_and_what_it_leaves_is_ground() -> None:
    pixels, way = picture(), (10, 26)
    there = warp(pixels, HANDLE, HANDLE + torch.tensor(way), AREA, THING)
    arrived = torch.roll(THING, way, (0, 1))
    assert torch.equal(there[0, :, arrived], pixels[0, :, THING])
    left = THING & ~arrived & ~torch.roll(arrived, (-4, -4), (0, 1))
    assert differences(there, ground(), left).max() < 30  # drawn along; the thing is 70 away
    assert differences(picture(), ground(), left).min() > 70
    assert torch.equal(there[0, :, ~AREA], pixels[0, :, ~AREA])
    assert torch.equal(warp(pixels, HANDLE, HANDLE + torch.tensor(way), AREA, THING), there)


def test_the_caller_keeps_the_picture() -> None:
    pixels = picture()
    before = pixels.clone()
    warp(pixels, HANDLE, HANDLE + 9, AREA, THING)
    assert torch.equal(pixels, before)


def test_half_a_turn_by_two_handles() -> None:
    """About the thing's middle, between pixels: then every pixel lies on another."""
    ends = torch.tensor([[47.5, 41.0], [47.5, 58.0]])
    turned = warp(picture(), ends, ends.flip(0), AREA, THING)
    assert torch.equal(turned[0, :, 40:56, 40:60], picture()[0, :, 40:56, 40:60].flip(1, 2))


def test_a_grown_thing_has_no_gaps() -> None:
    """Nearly twice as large: of three pixels of it two have no pixel that comes to them."""
    plain = ground()
    plain[0, :, THING] = RED[:, None]
    ends = torch.tensor([[47.5, 41.5], [47.5, 57.5]])
    grown = warp(plain, ends, torch.tensor([[47.5, 35.1], [47.5, 63.9]]), AREA, THING)
    inside = marked(35, 60, 34, 66)
    assert (grown[0, :, inside] == RED[:, None]).all()


def test_everything_can_go_and_what_comes_in_is_like_its_neighbours() -> None:
    """With nothing that stays, what is uncovered can only be continued from what has moved."""
    everything = torch.ones(SIZE, dtype=torch.bool)
    there = warp(ground(), HANDLE, HANDLE + torch.tensor([0.0, 12.0]), everything, everything)
    assert torch.equal(there[..., 12:], ground()[..., :-12])
    assert differences(there, ground()[..., :1].expand_as(there), marked(0, 96, 0, 12)).max() < 16


def test_without_a_mask_what_is_far_stays() -> None:
    there = warp(picture(), HANDLE, HANDLE + 12)
    changed = (there != picture()).any(1)[0]
    assert changed.any()
    assert not changed[:, 114:].any()
    assert not changed[:, :1].any()


@pytest.mark.parametrize("nothing", [(0, 0, 0, 0), (70, 74, 30, 34)], ids=["none", "thinner"])
def test_where_nothing_may_change_nothing_does(nothing: tuple[int, int, int, int]) -> None:
    assert torch.equal(warp(picture(), HANDLE, HANDLE + 12, marked(*nothing), THING), picture())


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (63, 65), (64, 64), (200, 131), (129, 400)])
def test_pictures_of_any_size(shape: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, *shape), generator=draws, dtype=torch.uint8)
    middle = torch.tensor([[shape[0] / 2, shape[1] / 2]]).floor()
    corners = torch.tensor([[0.0, 0.0], [shape[0] - 1.0, shape[1] - 1.0]])
    everywhere = torch.ones(shape, dtype=torch.bool)
    for handles, targets in ((middle, middle + 7), (corners, corners.flip(0))):
        for mask in (everywhere, None):
            assert warp(pixels, handles, targets, mask).shape == pixels.shape


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_modes_change_no_bit(mode: Callable[[], torch.autograd.grad_mode.no_grad]) -> None:
    wanted = warp(picture(), HANDLE, HANDLE + 12, AREA, THING)
    with mode():
        assert torch.equal(warp(picture(), HANDLE, HANDLE + 12, AREA, THING), wanted)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(warp(picture(), HANDLE, HANDLE + 12, AREA, THING), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_coarse_field_is_near_a_fine_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solved in pixels and by many sweeps it moves a blot to the same place."""
    rows, columns = (torch.arange(float(side)) for side in SIZE)
    blot = torch.exp(-((rows[:, None] - 48) ** 2 + (columns - 50) ** 2) / 800) * 250
    pixels = blot.expand(1, 3, *SIZE)
    coarse = warp(pixels, HANDLE, HANDLE + torch.tensor([8.0, 20.0]), AREA)
    monkeypatch.setattr(drag_warp, "_CELLS", 128)
    monkeypatch.setattr(drag_warp, "_SWEEPS", 80)
    fine = warp(pixels, HANDLE, HANDLE + torch.tensor([8.0, 20.0]), AREA)
    assert (pixels - fine).abs().mean() > 15
    assert (coarse - fine).abs().mean() < 3

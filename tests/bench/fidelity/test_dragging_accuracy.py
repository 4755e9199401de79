"""The dragging accuracy index of pictures whose patches are known."""

import numpy as np
import pytest

from dragnoise.bench.fidelity.dai import RADII, dragging_accuracy
from dragnoise.bench.fidelity.pixels import Pixels
from dragnoise.engine import ImageError, PointError


def picture() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("radius", RADII)
def test_what_arrived_has_no_difference(radius: int) -> None:
    before = picture()
    after = np.roll(before, (3, 7), axis=(0, 1))
    assert dragging_accuracy(before, after, [(30, 28)], [(37, 31)], radius) == 0
    assert dragging_accuracy(before, after, [(30, 28)], [(37, 32)], radius) > 0.1


def test_it_is_the_published_equation() -> None:
    before, after = picture(), picture()[::-1]
    handles, targets = [(20.0, 20.0), (30.2, 40.0)], [(25.0, 22.0), (33.0, 37.7)]
    whole = 0.0
    for (x, y), (u, v) in zip([(20, 20), (30, 40)], [(25, 22), (33, 38)], strict=True):
        one = before[y - 5 : y + 6, x - 5 : x + 6] / 255
        other = after[v - 5 : v + 6, u - 5 : u + 6] / 255
        whole += ((one - other) ** 2).sum() / (1 + 2 * 5) ** 2
    assert dragging_accuracy(before, after, handles, targets, 5) == pytest.approx(whole / 2)


def test_patches_are_cut_alike_at_the_border() -> None:
    before = picture()
    after = np.roll(before, 4, axis=1)
    assert dragging_accuracy(before, after, [(64, 1)], [(68, 1)], 10) == 0
    assert dragging_accuracy(before, after, [(0, 59)], [(4, 59)], 20) == 0


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(ImageError, match="one size"):
        dragging_accuracy(picture(), picture()[1:], [(1, 1)], [(2, 2)], 1)


def test_no_pair_and_points_outside_are_refused() -> None:
    with pytest.raises(PointError, match="no pair of points"):
        dragging_accuracy(picture(), picture(), [], [], 1)
    with pytest.raises(PointError, match="1 handles and 2 targets"):
        dragging_accuracy(picture(), picture(), [(1, 1)], [(2, 2), (3, 3)], 5)
    with pytest.raises(PointError, match=r"have no pixel in common within 70x60"):
        dragging_accuracy(picture(), picture(), [(1, 1)], [(90, 2)], 5)

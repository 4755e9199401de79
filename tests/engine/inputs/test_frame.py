"""Points and masks land where they should, in every size."""

import json

import numpy as np
import pytest
import torch

from dragnoise.engine import Image, Mask, Points
from dragnoise.engine.inputs.frame import Frame
from golden_cases import GOLDEN


def image(height: int, width: int) -> Image:
    return Image(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_rounding_as_published() -> None:
    """Half to even, at the published supervision size of each image size."""
    units = json.loads((GOLDEN / "dragnoise" / "units" / "units.json").read_text())
    assert len(units["rounding"]) > 30
    for unit in units["rounding"]:
        frame = Frame.of(image(unit["full"], unit["full"]), 8, published=True)
        assert frame.supervision == (unit["sup"], unit["sup"])
        handles, targets = frame.points(Points.of([(0, unit["coord"], unit["coord"], 0)]))
        assert targets[0, 1] == unit["out"]
        assert handles[0, 0] == min(unit["out"], unit["sup"] - 1)


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (251, 256), (341, 512), (1, 1), (7, 9), (200, 264)]
)
def test_padded_and_cropped(height: int, width: int) -> None:
    source = image(height, width)
    frame = Frame.of(source, 8)
    pixels = frame.pixels(source)
    assert pixels.shape[2] % 8 == pixels.shape[3] % 8 == 0
    assert 0 <= pixels.shape[2] - height < 8
    assert frame.supervision == (pixels.shape[2] // 2, pixels.shape[3] // 2)
    np.testing.assert_array_equal(frame.image_of(pixels).pixels, source.pixels)
    assert (pixels[:, :, -1] == pixels[:, :, height - 1]).all()
    assert (pixels[:, :, :, -1] == pixels[:, :, :, width - 1]).all()


def test_points_keep_their_place_when_padded() -> None:
    """Exactly half the coordinate, whatever the padding; and back."""
    frame = Frame.of(image(251, 253), 8)
    points = Points.of("10,20:252,250 0,0:100,200")
    handles, targets = frame.points(points)
    assert handles.tolist() == [[10, 5], [0, 0]]
    assert targets.tolist() == [[125, 126], [100, 50]]
    assert frame.image_points(targets) == ((252.0, 250.0), (100.0, 200.0))


def test_ways_are_not_rounded() -> None:
    """In cells of the supervision map, which are two pixels; of padding nothing is seen."""
    ways = Frame.of(image(251, 253), 8).ways(Points.of("10,20:13,24.5 7,0:7,0"))
    assert ways.dtype == torch.float32
    assert ways.tolist() == [[2.25, 1.5], [0.0, 0.0]]


def test_points_at_the_far_border() -> None:
    frame = Frame.of(image(64, 64), 8)
    handles, targets = frame.points(Points.of("63,63:63,63"))
    assert handles.tolist() == [[31, 31]]
    assert targets.tolist() == [[32, 32]]
    assert frame.image_points(torch.tensor([[32, 32]])) == ((63.0, 63.0),)


def test_published_sizes_are_resized_back() -> None:
    source = image(251, 256)
    frame = Frame.of(source, 8, published=True)
    assert frame.pixels(source).shape == (1, 3, 251, 256)
    assert frame.supervision == (125, 128)
    assert frame.image_of(torch.zeros(1, 3, 248, 256)).pixels.shape == (251, 256, 3)


def test_mask_goes_nearest_twice_and_repeats_at_the_padding() -> None:
    editable = np.zeros((30, 40), np.bool_)
    editable[20:, :] = True
    frame = Frame.of(image(30, 40), 8)
    small = frame.editable(Mask(editable), (4, 5))
    assert small[0, 0].tolist() == [[0] * 5] * 3 + [[1] * 5]
    assert (frame.editable(Mask(np.ones((30, 40), np.bool_)), (4, 5)) == 1).all()

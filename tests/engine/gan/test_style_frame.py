"""A picture of any size in the generator's square, and back."""

import numpy as np
import torch

from dragnoise.engine.gan.frame import StyleFrame
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.inputs.mask import Mask
from dragnoise.engine.inputs.points import Points


def picture(height: int, width: int) -> Image:
    rng = np.random.default_rng(height)
    return Image(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_picture_of_the_generators_size_is_left_as_it_is() -> None:
    image = picture(32, 32)
    frame = StyleFrame.around(image, 32)
    assert not frame.resizes
    assert frame.supervision == (32, 32)
    np.testing.assert_array_equal(frame.image_of(frame.pixels(image)).pixels, image.pixels)
    handles, targets = frame.points(Points(((3, 4), (31, 0)), ((5, 6), (0, 31))))
    assert handles.tolist() == [[4, 3], [0, 31]]
    assert targets.tolist() == [[6, 5], [31, 0]]
    assert frame.image_points(handles) == ((3.0, 4.0), (31.0, 0.0))


def test_another_size_is_resized_with_its_points_and_its_mask() -> None:
    image = picture(64, 128)
    frame = StyleFrame.around(image, 32)
    assert frame.resizes
    assert frame.pixels(image).shape == (1, 3, 32, 32)
    assert frame.image_of(torch.zeros(1, 3, 32, 32)).pixels.shape == (64, 128, 3)
    handles, _ = frame.points(Points(((5.5, 2.5), (127, 63)), ((0, 0), (0, 0))))
    assert handles.tolist() == [[1, 1], [31, 31]]
    assert frame.image_points(handles)[0] == (5.5, 2.5)
    editable = np.zeros((64, 128), dtype=np.bool_)
    editable[:32] = True
    small = frame.editable(Mask(editable), (32, 32))
    assert small.shape == (1, 1, 32, 32)
    assert small[0, 0, :16].all()
    assert not small[0, 0, 16:].any()


def test_points_stay_on_the_picture() -> None:
    frame = StyleFrame.around(picture(9, 9), 32)
    corners = torch.tensor([[0, 0], [31, 31]])
    for x, y in frame.image_points(corners):
        assert 0 <= x <= 8
        assert 0 <= y <= 8

"""Every kind of mask that a person may hand in, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import InputWarning, Mask, MaskError

HALF = np.zeros((12, 10), np.bool_)
HALF[:, 5:] = True


@pytest.mark.parametrize(
    "source",
    [
        HALF,
        HALF.astype(np.uint8),
        HALF.astype(np.int64),
        HALF * np.uint8(255),
        HALF * np.uint16(65535),
        HALF * 1.0,
        HALF[..., None],
        PIL.Image.fromarray(HALF),
        PIL.Image.fromarray(HALF * np.uint8(255)),
        PIL.Image.fromarray(HALF * np.uint8(255)).convert("RGB"),
        PIL.Image.fromarray(HALF * np.uint16(65535)),
    ],
    ids=[
        "bool",
        "0/1",
        "int64 0/1",
        "uint8",
        "uint16",
        "float",
        "channel",
        "pillow 1",
        "pillow L",
        "pillow RGB",
        "pillow I;16",
    ],
)
def test_masks(source: Any) -> None:
    np.testing.assert_array_equal(Mask.of(source, 10, 12).editable, HALF)


def test_mask_file_of_zeros_and_ones(tmp_path: Path) -> None:
    PIL.Image.fromarray(HALF.astype(np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(Mask.of(tmp_path / "mask.png", 10, 12).editable, HALF)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (HALF.T, "12x10 but the image is 10x12"),
        (np.zeros((12, 10, 3), np.uint8), "one channel"),
        (np.full((12, 10), 300), "int64"),
        (np.full((12, 10), -0.5), "-0.5"),
        ("nowhere.png", "no file"),
        (3, "int"),
    ],
)
def test_refused_masks(source: Any, says: str) -> None:
    with pytest.raises(MaskError, match=says):
        Mask.of(source, 10, 12)


WHITE, BLACK, RED, CLEAR = (255,) * 4, (0, 0, 0, 255), (255, 0, 0, 255), (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("painted", "rest", "mode"),
    [
        (WHITE, CLEAR, "RGBA"),
        (RED, CLEAR, "RGBA"),
        (BLACK, CLEAR, "RGBA"),
        (WHITE, (255, 255, 255, 0), "RGBA"),
        (BLACK, (255, 255, 255, 0), "LA"),
        (WHITE, BLACK, "RGBA"),
        ((255, 255, 255, 100), (0, 0, 0, 100), "RGBA"),
    ],
)
def test_layers(painted: Any, rest: Any, mode: str) -> None:
    layer = np.where(HALF[..., None], np.asarray(painted, np.uint8), np.asarray(rest, np.uint8))
    seen = Mask.of(PIL.Image.fromarray(layer).convert(mode), 10, 12).editable
    np.testing.assert_array_equal(seen, HALF)


def test_a_black_and_white_layer_counts_by_its_white() -> None:
    layer = np.where(HALF[..., None], np.asarray(WHITE, np.uint8), np.asarray(BLACK, np.uint8))
    layer[:2] = CLEAR
    seen = Mask.of(PIL.Image.fromarray(layer), 10, 12).editable
    np.testing.assert_array_equal(seen, HALF & (np.arange(12) >= 2)[:, None])


def test_a_layer_with_nothing_on_it_is_said() -> None:
    with pytest.warns(InputWarning, match="alpha 0 at all 120 pixels"):
        assert not Mask.of(PIL.Image.new("RGBA", (10, 12)), 10, 12).editable.any()

"""Every kind of mask that a person may hand in, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dragnoise.engine import Mask, MaskError

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

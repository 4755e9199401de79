"""Distances of pictures: known values, and what must hold for any two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragnoise.bench.replacement.distances import Distance, distance, share
from dragnoise.engine import Image


def noise(seed: int, side: int = 24) -> Image:
    return Image(np.random.default_rng(seed).integers(20, 200, (side, side, 3), dtype=np.uint8))


def test_equal_pictures() -> None:
    found = distance(noise(0), noise(0))
    assert found == Distance(0, found.psnr_db, 0, 0, 0, 0)
    assert found.psnr_db > 100


def test_a_brighter_picture_has_another_colour() -> None:
    """Ten levels more everywhere are ten levels in every measure of colour but the deviation."""
    brighter = Image(noise(0).pixels + np.uint8(10))
    found = distance(noise(0), brighter)
    assert (found.pixels, found.colour) == (10, 10)
    assert found.mean == pytest.approx(10)
    assert found.deviation == pytest.approx(0, abs=1e-12)
    assert found.psnr_db == pytest.approx(20 * np.log10(25.5))
    assert 0 < found.structure < 0.02


def test_a_mirrored_picture_has_the_same_colours() -> None:
    found = distance(noise(0), Image(noise(0).pixels[:, ::-1]))
    assert found.colour == 0
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.deviation == pytest.approx(0, abs=1e-9)
    assert found.pixels > 30
    assert found.structure > 0.8


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=10)
def test_any_two_pictures(one: int, other: int) -> None:
    found = distance(noise(one), noise(other))
    assert found == distance(noise(other), noise(one))
    assert found.mean <= found.colour + 1e-9
    assert found.colour <= found.pixels + 1e-9


def test_the_share_between_two_pictures() -> None:
    assert share(0, 10) == 0
    assert share(10, 0) == 1
    assert share(5, 15) == 0.25
    assert share(0, 0) == 0

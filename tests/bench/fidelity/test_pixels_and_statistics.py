"""Likeness of pictures whose likeness is known, and intervals of known values."""

import numpy as np
import pytest

from dragnoise.bench.fidelity.pixels import Pixels, psnr, sharpness, ssim
from dragnoise.bench.fidelity.statistics import grouped_interval, interval, paired
from dragnoise.engine.errors import ConfigError, ImageError


@pytest.fixture
def picture() -> Pixels:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def test_psnr_of_known_differences() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    grey = np.full((4, 4, 3), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(5))
    where = np.zeros((4, 4), bool)
    where[0, 0] = True
    grey[0, 0] = 255
    assert psnr(black, grey, where) == pytest.approx(0)
    assert psnr(grey, grey) > 110


def test_ssim_of_a_flat_shift_is_the_formula_s() -> None:
    a = np.full((16, 16, 3), 100, np.uint8)
    b = np.full((16, 16, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))


def test_ssim_falls_with_noise_and_is_one_for_itself(picture: Pixels) -> None:
    noise = np.random.default_rng(1).normal(0, 20, picture.shape)
    noisy = (picture + noise).clip(0, 255).astype(np.uint8)
    where = np.zeros(picture.shape[:2], bool)
    where[:8] = True
    half = picture.copy()
    half[:8] = noisy[:8]
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(picture, noisy) < ssim(picture, half) < 1
    assert ssim(picture, half, where) < ssim(picture, half)


def test_smears_and_noise_are_not_sharp(picture: Pixels) -> None:
    parts = [picture[:, at : at + 44].astype(int) for at in range(4)]
    smeared = (np.sum(parts, axis=0) // 4).astype(np.uint8)
    noise = np.random.default_rng(1).normal(0, 40, picture.shape)
    noisy = (picture + noise).clip(0, 255).astype(np.uint8)
    assert sharpness(picture, picture) == 1
    assert sharpness(smeared, picture[:, :44]) < 0.8
    assert sharpness(noisy, picture) < 0.8
    assert sharpness(np.zeros_like(picture), picture) == 0


def test_noise_that_makes_up_for_a_smear_is_seen_by_ssim_alone(picture: Pixels) -> None:
    parts = [picture[:, at : at + 44].astype(int) for at in range(4)]
    truth, smeared = picture[:, :44], np.sum(parts, axis=0) // 4
    noise = np.random.default_rng(1).normal(0, 1, truth.shape)
    rivals = [(smeared + size * noise).clip(0, 255).astype(np.uint8) for size in range(40)]
    rival = max(rivals, key=lambda each: sharpness(each, truth))
    assert sharpness(rival, truth) > 0.98 > 0.8 > sharpness(rivals[0], truth)
    assert ssim(rival, truth) < ssim(rivals[0], truth)
    assert sharpness(np.ascontiguousarray(truth[:, ::-1]), truth) == pytest.approx(1)


def test_what_is_no_picture_or_selection_is_refused(picture: Pixels) -> None:
    for wrong in (picture / 255, picture[..., 0], picture[..., :2]):
        with pytest.raises(ImageError, match=r"pictures are uint8 \[H, W, 3\], got"):
            psnr(wrong, wrong)  # type: ignore[arg-type]  # that is the test
    numbers = np.ones(picture.shape[:2], np.uint8)
    with pytest.raises(ImageError, match="chosen by bool, got uint8"):
        ssim(picture, picture, numbers)  # type: ignore[arg-type]  # as numbers they name rows
    with pytest.raises(ImageError, match="a picture of 48x1 has no gradient"):
        sharpness(picture[:1], picture[:1])


def test_other_sizes_and_empty_selections_are_refused(picture: Pixels) -> None:
    with pytest.raises(ImageError, match="one size"):
        psnr(picture, picture[1:])
    with pytest.raises(ImageError, match="no pixel"):
        ssim(picture, picture, np.zeros(picture.shape[:2], bool))


def test_an_interval_holds_the_mean_and_narrows_with_values() -> None:
    rng = np.random.default_rng(2)
    few = interval(rng.normal(5, 1, 10).tolist())
    many = interval(rng.normal(5, 1, 1000).tolist())
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    assert many.low < 5 < many.high
    assert interval([3.0]) == interval([3.0])
    with pytest.raises(ConfigError, match="finite"):
        interval([])
    with pytest.raises(ConfigError, match="finite"):
        interval([1.0, float("nan")])


def test_equal_methods_are_noise_and_a_shift_is_not() -> None:
    rng = np.random.default_rng(3)
    drags = {f"drag-{number}": float(rng.uniform(0, 20)) for number in range(30)}
    wobbled = {name: value + float(rng.normal()) for name, value in drags.items()}
    nearer = {name: value - 2 for name, value in wobbled.items()}
    assert paired(wobbled, drags).is_noise
    better = paired(nearer, drags)
    assert not better.is_noise
    assert better.difference.high < 0
    assert better.smaller > 25
    with pytest.raises(ConfigError, match="in common"):
        paired({"a": 1.0}, {"b": 1.0})


def test_a_grouped_interval_covers_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        groups = [(random.normal(1.0) + random.normal(0, 0.1, 3)).tolist() for _ in range(40)]
        found = grouped_interval(groups, seed)
        covered += found.low <= 1.0 <= found.high
    assert 0.9 <= covered / 200 <= 0.98


def test_values_of_one_picture_are_not_independent() -> None:
    together = grouped_interval([[1.0, 1.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0]] * 5)
    apart = grouped_interval([[1.0], [1.0], [1.0], [1.0], [5.0], [5.0], [5.0], [5.0]] * 5)
    assert together.mean == apart.mean == 3.0
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@pytest.mark.parametrize("groups", [[[2.0]], [[2.0], [2.0, 2.0]]])
def test_groups_without_spread_have_no_interval(groups: list[list[float]]) -> None:
    found = grouped_interval(groups)
    assert (found.mean, found.low, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], []], [[np.inf]]])
def test_groups_without_values_have_no_mean(groups: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="a mean needs finite values"):
        grouped_interval(groups)

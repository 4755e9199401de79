"""Compare pictures pixel by pixel.

Pictures are uint8 [H, W, 3]. `where` is bool [H, W]: the pixels that count; None: all.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dragnoise.engine.errors import ImageError

__all__ = ["Pixels", "Selection", "psnr", "sharpness", "ssim"]

Pixels: TypeAlias = NDArray[np.uint8]
Selection: TypeAlias = NDArray[np.bool_]
_Map: TypeAlias = NDArray[np.float64]

_SIGMA = 1.5
_RADIUS = 5
_LUMA = (0.299, 0.587, 0.114)


def psnr(a: Pixels, b: Pixels, where: Selection | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB; 114 where the pictures are equal."""
    _check(a, b, where)
    error = (a.astype(np.float32) - b) ** 2
    if where is not None:
        error = error[where]
    return 10 * math.log10(255**2 / max(2.5e-7, float(error.mean())))


def ssim(a: Pixels, b: Pixels, where: Selection | None = None) -> float:
    """Return the structural similarity of two pictures' luminance, at most 1.

    The mean of the map over the pixels that count; windows are Gaussian (11 x 11, deviation 1.5)
    and mirrored at the borders. Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, eq. 13.
    """
    _check(a, b, where)
    x = _luminance(a)
    y = _luminance(b)
    mean_x = _blurred(x)
    mean_y = _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1 = (0.01 * 255) ** 2
    c2 = (0.03 * 255) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = alike / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return float(similarity.mean() if where is None else similarity[where].mean())


def sharpness(picture: Pixels, truth: Pixels, where: Selection | None = None) -> float:
    """Return how near a picture's gradient energy is to the truth's: 1 where it is the same.

    The smaller of the two energies over the larger, so that a smear costs, and noise beyond the
    truth's energy. It counts energy and does not see whose: a smear with as much noise on it as it
    has lost, and a mirrored picture, have 1. Read it beside PSNR or SSIM, which fall there.
    """
    _check(picture, truth, where)
    if min(picture.shape[:2]) < 2:
        height, width = picture.shape[:2]
        raise ImageError(f"a picture of {width}x{height} has no gradient; give 2 pixels a side")
    energies = sorted(_gradient_energy(each, where) for each in (picture, truth))
    return energies[0] / energies[1] if energies[1] else 1.0


def _check(a: Pixels, b: Pixels, where: Selection | None) -> None:
    for each in (a, b):
        if each.dtype != np.uint8 or each.ndim != 3 or each.shape[2] != 3:
            raise ImageError(f"pictures are uint8 [H, W, 3], got {each.dtype} {list(each.shape)}")
    if a.shape != b.shape or (where is not None and where.shape != a.shape[:2]):
        shapes = [each.shape for each in (a, b, where) if each is not None]
        raise ImageError(f"pictures of one size are compared, got {shapes}")
    if where is not None and where.dtype != np.bool_:
        raise ImageError(f"pixels are chosen by bool, got {where.dtype}; compare it with 0 first")
    if where is not None and not where.any():
        raise ImageError("no pixel counts; name at least one")


def _luminance(picture: Pixels) -> _Map:
    luminance: _Map = picture.astype(np.float64) @ np.array(_LUMA)
    return luminance


def _blurred(values: _Map) -> _Map:
    """Return Gaussian means around every pixel."""
    places = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-(places**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        wide = [(0, 0), (0, 0)]
        wide[axis] = (_RADIUS, _RADIUS)
        padded = np.pad(values, wide, mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _RADIUS + 1, axis)
        values = windows @ weights
    return values


def _gradient_energy(picture: Pixels, where: Selection | None) -> float:
    down, across = np.gradient(picture.astype(np.float64), axis=(0, 1))
    energy = (down**2 + across**2).sum(-1)
    return float(energy.mean() if where is None else energy[where].mean())

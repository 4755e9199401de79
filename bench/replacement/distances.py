"""Measure how far a picture is from another: in pixels, in structure, in the colours' statistics.

    pixels     mean |a - b|, in levels of 255
    structure  1 - SSIM of the luminance
    colour     mean over channels of the distance of the histograms: the least mean change of levels
               that makes one channel's histogram the other's (1-Wasserstein), in levels of 255

The colours' distance knows no places and never exceeds that of the pixels: their ratio says how
much of a change is one of colours.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine import Image

__all__ = ["SHARED", "Distance", "distance", "share"]

_LARGEST_DB = 100.0
"""What equal pictures get, as in `stages.rebuild`."""

_WINDOW = 11
_WINDOW_DEVIATION = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


@dataclass(frozen=True)
class Distance:
    """A distance of two pictures of one size.

    Attributes:
        pixels: Mean absolute difference, in levels of 255.
        psnr_db: Peak signal-to-noise ratio; at most 100 dB.
        structure: 1 - SSIM of the luminance.
        colour: Distance of the channels' histograms, in levels of 255.
        mean: Mean absolute difference of the channels' means, in levels of 255.
        deviation: The same of their standard deviations.
    """

    pixels: float
    psnr_db: float
    structure: float
    colour: float
    mean: float
    deviation: float


SHARED = ("pixels", "structure", "colour")
"""The measures by which it is said which of two pictures a third is nearer to."""


def distance(one: Image, other: Image) -> Distance:
    """Return how far two pictures of one size are apart."""
    first = one.pixels.astype(np.float64)
    second = other.pixels.astype(np.float64)
    error = max(float(np.square((first - second) / 255).mean()), 10 ** (-_LARGEST_DB / 10))
    return Distance(
        pixels=float(np.abs(first - second).mean()),
        psnr_db=-10 * math.log10(error),
        structure=1 - _ssim(one, other),
        colour=float(np.abs(_sorted(first) - _sorted(second)).mean()),
        mean=float(np.abs(first.mean((0, 1)) - second.mean((0, 1))).mean()),
        deviation=float(np.abs(first.std((0, 1)) - second.std((0, 1))).mean()),
    )


def share(to_own: float, to_other: float) -> float:
    """Return where a picture lies between two: 0 at its own, 1 at the other."""
    both = to_own + to_other
    return to_own / both if both else 0.0


def _sorted(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sort(pixels.reshape(-1, pixels.shape[2]), axis=0)


def _ssim(one: Image, other: Image) -> float:
    """Return the mean structural similarity of the luminance (Wang et al. 2004, equation 13).

    Windows are Gaussian, of deviation 1.5 and 11 pixels a side (smaller in smaller pictures), where
    they lie whole in the picture.
    """
    side = min(_WINDOW, one.height, one.width)
    places = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-(places**2) / (2 * _WINDOW_DEVIATION**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2

    def around(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    x = _luminance(one)
    y = _luminance(other)
    mean_x = around(x)
    mean_y = around(y)
    variances = around(x * x) - mean_x**2 + around(y * y) - mean_y**2
    covariance = around(x * y) - mean_x * mean_y
    nearness = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return float((nearness * (2 * covariance + _C2) / (variances + _C2)).mean())


def _luminance(image: Image) -> Tensor:
    """Return ITU-R 601's luminance in levels of 255, float64 [1, 1, H, W]."""
    return torch.from_numpy(image.pixels @ np.array([0.299, 0.587, 0.114]))[None, None]

"""Measure how far a picture is from another: in pixels, in structure, in the colours' statistics.

    pixels     mean |a - b|, in levels of 255
    structure  1 - SSIM of the luminance
    colour     mean over channels of the distance of the histograms: the least mean change of levels
               that makes one channel's histogram the other's (1-Wasserstein), in levels of 255

The colours' distance knows no places and never exceeds that of the pixels: their ratio says how
much of a change is one of colours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dragnoise.engine import Image

from ..fidelity.pixels import psnr, ssim

__all__ = ["SHARED", "Distance", "distance", "share"]


@dataclass(frozen=True)
class Distance:
    """A distance of two pictures of one size.

    Attributes:
        pixels: Mean absolute difference, in levels of 255.
        psnr_db: Peak signal-to-noise ratio; 114 for equal pictures.
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
    return Distance(
        pixels=float(np.abs(first - second).mean()),
        psnr_db=psnr(one.pixels, other.pixels),
        structure=1 - ssim(one.pixels, other.pixels),
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

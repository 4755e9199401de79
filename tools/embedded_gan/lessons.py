"""Say which mountain scene a random vector stands for, so that a generator can be taught it.

The first entries of z are the scene's factors, each a standard normal's share of the factor's
range; the others stand for nothing. The mapping network looks at z divided by its root mean square,
and so does `scene`: a picture is decided by what the network sees.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dragnoise.bench.world import painting
from dragnoise.bench.world import scenes as world
from dragnoise.bench.world.landmarks import RANGES
from dragnoise.bench.world.scenes import Land

PLACES = tuple(RANGES)
COLOURS: dict[str, tuple[str, ...]] = {
    "sky": tuple(world.SKIES),
    "ground": tuple(world.GROUNDS),
    "roof": tuple(world.PAINTS)[:6],
}
FACTORS = (*PLACES, *COLOURS)

STRIP = slice(84, 118)
"""The rows where the house can be; they count `STRIP_WEIGHT` times."""
STRIP_WEIGHT = 8.0
SMALL: dict[str, tuple[float, float]] = {"sun": (16.0, 6.0), "house": (15.0, 16.0)}
"""Landmarks of small things: how far around them they reach, pixels, and how much they count."""

_NORMAL = NormalDist()


def normalised(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide random vectors [N, z] by their root mean squares."""
    size: NDArray[np.float64] = np.sqrt(np.square(z).mean(1, keepdims=True))
    return z / size


def scene(places: NDArray[np.float64], colours: NDArray[np.float64]) -> Land:
    """Return the scene of two normalised vectors: one decides the places, one the colours."""
    shares = {name: _NORMAL.cdf(float(places[FACTORS.index(name)])) for name in PLACES}
    chosen: dict[str, Any] = {}
    for name, values in COLOURS.items():
        share = _NORMAL.cdf(float(colours[FACTORS.index(name)]))
        chosen[name] = values[min(int(share * len(values)), len(values) - 1)]
    for name, (low, high) in RANGES.items():
        chosen[name] = low + shares[name] * (high - low)
    return Land(**chosen)


def drawn(scenes: Sequence[Land]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw scenes, and say what counts how much: small things count more than the rest.

    Returns:
        The pictures, uint8 [N, 3, 128, 128], and the weights, float32 [N, 1, 128, 128].
    """
    rows, columns = np.ogrid[: world.SIZE, : world.SIZE]
    pictures = np.empty((len(scenes), 3, world.SIZE, world.SIZE), np.uint8)
    weights = np.ones((len(scenes), 1, world.SIZE, world.SIZE), np.float32)
    weights[:, :, STRIP] = STRIP_WEIGHT
    for picture, weight, one in zip(pictures, weights, scenes, strict=True):
        pixels, places = painting.render(one)
        picture[:] = pixels.transpose(2, 0, 1)
        for name, (radius, share) in SMALL.items():
            x, y = places[name]
            weight[0, (columns - x) ** 2 + (rows - y) ** 2 < radius**2] = share
    return pictures, weights

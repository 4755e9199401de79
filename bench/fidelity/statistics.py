"""Say how sure a mean is, and whether two methods differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dragnoise.engine.errors import ConfigError

__all__ = ["Interval", "Paired", "grouped_interval", "interval", "paired"]

_RESAMPLES = 2000
_LEVEL = 95.0


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval of 95 %.

    Attributes:
        mean: Of the values.
        low: Where the interval begins.
        high: Where it ends.
        count: How many values there are.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Paired:
    """Two methods compared on the same drags.

    Attributes:
        difference: The mean of the first's values less the second's, with its interval.
        smaller: On how many drags the first's value is smaller.
    """

    difference: Interval
    smaller: int

    @property
    def is_noise(self) -> bool:
        """Whether no difference is within the interval."""
        return self.difference.low <= 0 <= self.difference.high


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of values and its percentile bootstrap interval (Efron, 1979).

    Args:
        values: At least one, all finite.
        seed: Of the resampling: the same values give the same interval.

    Raises:
        ConfigError: There are no values, or some are not finite.
    """
    array = np.asarray(values, np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ConfigError(f"a mean needs finite values, got {list(values)[:5]}")
    chosen = np.random.default_rng(seed).integers(array.size, size=(_RESAMPLES, array.size))
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(array[chosen].mean(1), (tail, 100 - tail))
    return Interval(float(array.mean()), float(low), float(high), array.size)


def grouped_interval(groups: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """Return the mean of all values and its bootstrap interval over groups.

    Values of one group (the pairs of points of one picture) are not independent, so that whole
    groups are drawn (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8).

    Args:
        groups: At least one, none of them empty, all values finite.
        seed: Of the resampling.

    Raises:
        ConfigError: There are no values, or some are not finite.
    """
    sums = np.array([np.sum(group) for group in groups], np.float64)
    counts = np.array([len(group) for group in groups], np.float64)
    if not counts.size or not counts.all() or not np.isfinite(sums).all():
        raise ConfigError(f"a mean needs finite values, got {list(groups)[:5]}")
    shape = (_RESAMPLES, counts.size)
    chosen = np.random.default_rng(seed).integers(counts.size, size=shape)
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    mean = float(sums.sum() / counts.sum())
    return Interval(mean, float(low), float(high), int(counts.sum()))


def paired(first: Mapping[str, float], second: Mapping[str, float], seed: int = 0) -> Paired:
    """Compare two methods' values by drag, on the drags that both have.

    Raises:
        ConfigError: They have none in common.
    """
    names = [name for name in first if name in second]
    if not names:
        raise ConfigError("the two methods have no drag in common")
    differences = [first[name] - second[name] for name in names]
    smaller = sum(difference < 0 for difference in differences)
    return Paired(interval(differences, seed), smaller)

"""Intervals of means and of ratios of means, by drawing the same number of queries again and again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DRAWS = 10_000


def mean_with_interval(values: Sequence[float], digits: int = 2) -> str:
    """Write the mean with its 95 % interval (percentiles of the bootstrap)."""
    numbers = np.asarray(values, dtype=np.float64)
    return _written(float(numbers.mean()), numbers[_drawn(len(numbers))].mean(axis=1), digits)


def ratio_with_interval(above: Sequence[float], below: Sequence[float], digits: int = 2) -> str:
    """Write the ratio of two means over the same queries with its 95 % interval; a dash where it has none."""
    numerator, denominator = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    rows = _drawn(len(numerator))
    means = denominator[rows].mean(axis=1)
    if not means.all():
        return "–"
    ratio = float(numerator.mean() / denominator.mean())
    return _written(ratio, numerator[rows].mean(axis=1) / means, digits)


def _drawn(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, size=(_DRAWS, count))


def _written(value: float, drawn: NDArray[np.float64], digits: int) -> str:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"

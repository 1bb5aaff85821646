"""Means over queries with bootstrap confidence intervals.

Queries are drawn many times with replacement, and percentiles of the means are the bounds of the interval (Efron
1979). All measures of all methods share the draws; `scipy.stats.bootstrap` would draw again for each of them.

Shape letters: q queries · r draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapidin.records import Interval

DRAWS = 2000
CONFIDENCE = 0.95


class Bootstrap:
    """Draws of queries, shared by everything that is compared.

    Args:
        queries: number of queries q.
        seed: seed of the draws.
    """

    def __init__(self, queries: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        # How often each query is drawn, [r, q].
        self._counts = random.multinomial(queries, np.full(queries, 1 / queries), size=DRAWS)
        self._queries = queries

    def mean(self, values: NDArray[np.floating]) -> Interval:
        """Compute the mean and the interval of one value for each query, [q]."""
        values = np.asarray(values, dtype=np.float64)
        mean = float(values.mean())
        if self._queries < 2:
            return Interval(mean, None, None)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(self._counts @ values / self._queries, [tail, 1 - tail])
        return Interval(mean, float(low), float(high))

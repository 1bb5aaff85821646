"""The k best of scores that come block by block; the order is total: score, then place, which is the order of ids.

q queries · m rows of a block · k results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Best:
    """The best found so far: scores [q, ≤ k] and the indexes of their rows, best first.

    Where a query has fewer results than others, the rest are −∞ with index −1.
    """

    scores: NDArray[np.float32]
    indexes: NDArray[np.int64]


class Ends:
    """The rows of largest and, if wanted, of smallest scores, found in one pass.

    Attributes:
        largest: best first.
        smallest: scores with turned signs, so that best first is from the smallest up; None if not wanted.
    """

    def __init__(self, queries: int, k: int, both: bool) -> None:
        self._k = k
        self.largest = nothing(queries)
        self.smallest = nothing(queries) if both else None

    def add(self, scores: NDArray[np.float32], indexes: NDArray[np.int64]) -> None:
        """Take a block's scores [q, m] of rows [m]."""
        self.largest = _merged(self.largest, scores, indexes, self._k)
        if self.smallest is not None:
            self.smallest = _merged(self.smallest, -scores, indexes, self._k)

    def add_of_each(self, largest: bool, scores: NDArray[np.float32], indexes: NDArray[np.int64]) -> None:
        """Take results [q, m] that each query has of its own, for one end; smallest scores have turned signs."""
        mine = self.largest if largest else self.smallest
        if mine is None:
            return
        merged = joined([mine, Best(scores, indexes)], len(scores), self._k)
        if largest:
            self.largest = merged
        else:
            self.smallest = merged


def nothing(queries: int) -> Best:
    """No result yet for any query."""
    return Best(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))


def joined(parts: Iterable[Best], queries: int, k: int) -> Best:
    """The k best of several results."""
    found = [nothing(queries), *parts]
    return best_of(
        np.concatenate([part.scores for part in found], axis=1),
        np.concatenate([part.indexes for part in found], axis=1),
        k,
    )


def joined_ends(parts: Sequence[Ends], queries: int, k: int, both: bool) -> Ends:
    """The k best of several results at each end that is wanted."""
    found = Ends(queries, k, both)
    found.largest = joined([part.largest for part in parts], queries, k)
    if both:
        found.smallest = joined([part.smallest for part in parts if part.smallest], queries, k)
    return found


def best_of(scores: NDArray[np.float32], indexes: NDArray[np.int64], k: int) -> Best:
    """The first k of scores [q, m] by descending score, then ascending index [q, m], which is the order of ids."""
    width = min(k, scores.shape[1])
    best_scores = np.empty((len(scores), width), np.float32)
    best_indexes = np.empty((len(scores), width), np.int64)
    for query, (of_query, at) in enumerate(zip(scores, indexes, strict=True)):
        chosen = np.arange(len(of_query))
        if len(of_query) > width > 0:
            # All rows that equal the k-th score stay in until ids decide.
            threshold = np.partition(of_query, len(of_query) - width)[len(of_query) - width]
            chosen = np.flatnonzero(of_query >= threshold)
        first = chosen[np.lexsort((at[chosen], -of_query[chosen]))[:width]]
        best_scores[query], best_indexes[query] = of_query[first], at[first]
    return Best(best_scores, best_indexes)


def _merged(best: Best, scores: NDArray[np.float32], indexes: NDArray[np.int64], k: int) -> Best:
    """`best` and a block's scores [q, m] with indexes [m], cut to the best k."""
    if best.scores.shape[1] < k:
        every = np.broadcast_to(indexes, scores.shape)
        return best_of(
            np.concatenate([best.scores, scores], axis=1), np.concatenate([best.indexes, every], axis=1), k
        )
    # Soon hardly any row of a block is among the best of any query: only those are looked at.
    least = best.scores[:, -1]
    for query in np.flatnonzero(scores.max(axis=1) >= least):
        chosen = np.flatnonzero(scores[query] >= least[query])
        found = best_of(
            np.concatenate([best.scores[query], scores[query, chosen]])[None],
            np.concatenate([best.indexes[query], indexes[chosen]])[None],
            k,
        )
        best.scores[query], best.indexes[query] = found.scores[0], found.indexes[0]
    return best

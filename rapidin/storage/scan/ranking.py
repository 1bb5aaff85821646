"""The k best of scores that come block by block.

The order is total: by score, then by index, which is the order of ids.

q queries · m rows of a block · k results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Best:
    """The best that were found so far: scores [q, ≤ k] and the indexes of their rows, best first.

    If a query has fewer results than others, its last scores are −∞ and their indexes −1.
    """

    scores: NDArray[np.float32]
    indexes: NDArray[np.int64]


class Ends:
    """The rows of largest scores and, if they are wanted, those of smallest ones, found in one pass.

    Attributes:
        largest: rows of largest scores, best first.
        smallest: rows of smallest scores, from the smallest up; their scores have turned signs, so that the
            largest is first. None if they are not wanted.
    """

    def __init__(self, queries: int, k: int, both: bool) -> None:
        self._k = k
        self.largest = nothing(queries)
        self.smallest = nothing(queries) if both else None

    def add(self, scores: NDArray[np.float32], indexes: NDArray[np.int64]) -> None:
        """Add the scores [q, m] of a block, whose rows have these indexes [m]."""
        self.largest = _merged(self.largest, scores, indexes, self._k)
        if self.smallest is not None:
            self.smallest = _merged(self.smallest, -scores, indexes, self._k)

    def add_of_each(self, largest: bool, scores: NDArray[np.float32], indexes: NDArray[np.int64]) -> None:
        """Add results [q, m] at one end, where each query has its own rows; smallest scores have turned signs."""
        mine = self.largest if largest else self.smallest
        if mine is None:
            return
        merged = joined([mine, Best(scores, indexes)], len(scores), self._k)
        if largest:
            self.largest = merged
        else:
            self.smallest = merged


def nothing(queries: int) -> Best:
    """Return no result for any of so many queries."""
    return Best(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))


def joined(parts: Iterable[Best], queries: int, k: int) -> Best:
    """Return the k best of several results."""
    found = [nothing(queries), *parts]
    return best_of(
        np.concatenate([part.scores for part in found], axis=1),
        np.concatenate([part.indexes for part in found], axis=1),
        k,
    )


def joined_ends(parts: Sequence[Ends], queries: int, k: int, both: bool) -> Ends:
    """Return the k best of several results at each end that is wanted."""
    found = Ends(queries, k, both)
    found.largest = joined([part.largest for part in parts], queries, k)
    if both:
        found.smallest = joined([part.smallest for part in parts if part.smallest], queries, k)
    return found


def best_of(scores: NDArray[np.float32], indexes: NDArray[np.int64], k: int) -> Best:
    """Return the first k of scores [q, m], by descending score, then by ascending index [q, m]."""
    width = min(k, scores.shape[1])
    best_scores = np.empty((len(scores), width), np.float32)
    best_indexes = np.empty((len(scores), width), np.int64)
    for query, (of_query, at) in enumerate(zip(scores, indexes, strict=True)):
        chosen = np.arange(len(of_query))
        if len(of_query) > width > 0:
            # All rows whose score equals the k-th stay in, because ids decide between them.
            threshold = np.partition(of_query, len(of_query) - width)[len(of_query) - width]
            chosen = np.flatnonzero(of_query >= threshold)
        first = chosen[np.lexsort((at[chosen], -of_query[chosen]))[:width]]
        best_scores[query], best_indexes[query] = of_query[first], at[first]
    return Best(best_scores, best_indexes)


def _merged(best: Best, scores: NDArray[np.float32], indexes: NDArray[np.int64], k: int) -> Best:
    """Return the k best of `best` and of a block's scores [q, m], whose rows have these indexes [m]."""
    if best.scores.shape[1] < k:
        every = np.broadcast_to(indexes, scores.shape)
        return best_of(
            np.concatenate([best.scores, scores], axis=1), np.concatenate([best.indexes, every], axis=1), k
        )
    # Soon hardly any row of a block is among the best of any query, so only such rows are looked at.
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

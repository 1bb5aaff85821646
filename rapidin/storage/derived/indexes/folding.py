"""Folding, which makes vectors of r numbers from vectors of K numbers, in order to cluster them.

z_j is the sum of s_i · v_i over all i ≡ j mod r, with signs s that are fixed and random. Inner products of folded
vectors are unbiased over the signs, and their variance is 1/r for unit vectors. k-means of all 65,536 numbers
would take more time than searches ever save. A wrong list only costs a little recall, because scores are computed
from the whole vectors.

n vectors · K numbers in a vector · r numbers in a folded one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rapidin.storage.vectors import Rows, Segment, SegmentSource

WIDEST = 4096
"""Maximum of r; r is K if K is smaller."""
_SEED = 4096
"""Seed of the signs, which must never change, because indexes on disk depend on it."""


class Folding:
    """The map that folds vectors, in the coordinates in which the store's codec keeps them.

    Args:
        dimension: K.

    Attributes:
        width: r.
    """

    def __init__(self, dimension: int) -> None:
        self.width = min(dimension, WIDEST)
        # NumPy promises equal raw bits in all versions, but not equal random numbers.
        words = np.random.PCG64(_SEED).random_raw(-(-dimension // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8))[:dimension].astype(np.float32)
        self._signs = (1 - 2 * bits).reshape(-1, self.width)

    def directions(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors [n, K], folded and divided by their norms, [n, r]."""
        parts = vectors.reshape(len(vectors), len(self._signs), self.width)
        folded: NDArray[np.float32] = parts[:, 0] * self._signs[0]
        for number in range(1, len(self._signs)):
            folded += parts[:, number] * self._signs[number]
        # Huge numbers would overflow when squared.
        folded /= np.maximum(np.abs(folded).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        norms = np.linalg.norm(folded, axis=1, keepdims=True)
        folded /= np.where(norms > 0, norms, 1)
        return folded

    def of_segment(self, segment: Segment, positions: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Yield the directions of the vectors at ascending `positions`, in blocks [≤ n, r]."""
        return map(self.directions, segment.decoded(positions))

    def of_rows(self, rows: Rows, segments: SegmentSource) -> NDArray[np.float32]:
        """Return the directions of the vectors of rows, [n, r]."""
        folded = np.empty((len(rows), self.width), np.float32)
        for segment_id, indexes in rows.by_segment():
            start = 0
            for block in self.of_segment(segments(segment_id), rows.positions[indexes]):
                folded[indexes[start : start + len(block)]] = block
                start += len(block)
        return folded

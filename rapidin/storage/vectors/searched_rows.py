"""Rows: the places in segments of the vectors to be searched, in the order of their samples' ids.

n rows · m rows of a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors to be searched, in ascending order of their samples' ids; all arrays are [n].

    Attributes:
        keys: keys of the samples' rows in the database.
        segments: database ids of their segments.
        positions: positions of the vectors in their segments.
        scales: factors of the scores.
    """

    keys: NDArray[np.int64]
    segments: NDArray[np.int64]
    positions: NDArray[np.int64]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    def chosen(self, indexes: NDArray[np.int64]) -> Rows:
        """Return some of the rows, in the order of `indexes`."""
        return Rows(self.keys[indexes], self.segments[indexes], self.positions[indexes], self.scales[indexes])

    def by_segment(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the database id of each segment with the indexes of its rows in order of position."""
        if len(self):
            order = np.lexsort((self.positions, self.segments))
            borders = np.flatnonzero(np.diff(self.segments[order])) + 1
            for group in np.split(order, borders):
                yield int(self.segments[group[0]]), group

    def having(self, keys: NDArray[np.int64]) -> Rows:
        """Return the rows with one of `keys` [m], in the same order."""
        return self.chosen(np.flatnonzero(np.isin(self.keys, keys)))

"""The number of lists that an ``ivf`` index must read, measured for every number with stored vectors as queries.

The true neighbours of a query lie in lists. A query reads lists in an order, so the rank of a list in that order
is the smallest number of lists with which its rows are found.

h queries · m neighbours of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Curve:
    """The results of reading 1 to nlist lists.

    Attributes:
        recall: share of the neighbours that is found, [nlist].
        scanned: share of the rows that is read, [nlist].
    """

    recall: NDArray[np.float64]
    scanned: NDArray[np.float64]

    def least(self, target: float) -> int:
        """Return the smallest number of lists whose recall is at least `target` ≤ 1."""
        return int(np.argmax(self.recall >= target)) + 1

    def at(self, nprobe: int) -> tuple[float, float]:
        """Return the recall, and the share of rows that is read, with a number of lists."""
        return float(self.recall[nprobe - 1]), float(self.scanned[nprobe - 1])


def measure(order: NDArray[np.int64], neighbours: NDArray[np.int32], sizes: NDArray[np.int64]) -> Curve:
    """Return the curve of some queries.

    Args:
        order: lists in the order in which each query reads them, [h, nlist].
        neighbours: lists of the true neighbours, [h, m].
        sizes: number of rows of each list, [nlist].
    """
    queries, nlist = order.shape
    scanned = np.cumsum(sizes[order], axis=1).mean(axis=0) / max(1, sizes.sum())
    if neighbours.size == 0:
        return Curve(np.ones(nlist), scanned)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(nlist), (queries, nlist)), axis=1)
    found = np.bincount(np.take_along_axis(ranks, neighbours, axis=1).ravel(), minlength=nlist)
    return Curve(np.cumsum(found) / neighbours.size, scanned)

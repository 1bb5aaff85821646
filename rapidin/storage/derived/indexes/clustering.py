"""Lists of an ``ivf`` index: centroids by k-means, and the list of a vector.

n vectors · r numbers in a folded one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.storage.scan import MOST_THREADS
from rapidin.storage.vectors import load_faiss
from rapidin.support import openmp_threads, processors

MEMORY = 2**30
"""Bytes of the vectors that lists are made from, unless their number is given."""
LEAST_PER_LIST = 30
"""Training vectors; fewer make centroids of noise."""
MOST_PER_LIST = 64
"""More hardly improve the centroids."""
_FACTORS = (2, 4, 8)
"""Multiples of √N: the numbers of lists that are tried."""
_ROUNDS = 10
_SEED = 1234
_BLOCK = 4096


def list_counts(rows: int, most_training: int, nlist: int | None) -> list[int]:
    """Numbers of lists to try, ascending.

    Args:
        rows: live samples of the store.
        most_training: vectors that there are for training.
        nlist: the number that was asked for, None: whatever is best.

    Raises:
        SettingError: `nlist` is not positive, or there are fewer vectors.
    """
    if nlist is None:
        most = max(1, most_training // LEAST_PER_LIST)
        return sorted({max(1, min(most, round(factor * math.sqrt(rows)))) for factor in _FACTORS})
    if not 1 <= nlist <= most_training:
        raise SettingError(
            f"--nlist {nlist} cannot be used: give 1 to {most_training:,}, the number of training vectors"
        )
    return [nlist]


def train(directions: NDArray[np.float32], nlist: int) -> NDArray[np.float32]:
    """Unit centroids [nlist, r] of directions [n, r], n ≥ nlist; the same for the same input."""
    faiss = load_faiss()
    kmeans = faiss.Kmeans(
        directions.shape[1],
        nlist,
        niter=_ROUNDS,
        seed=_SEED,
        spherical=True,  # compares by inner product, and centroids have norm 1
        min_points_per_centroid=1,  # FAISS would print a warning
        max_points_per_centroid=len(directions),
    )
    with openmp_threads(faiss, min(MOST_THREADS, processors())):
        kmeans.train(directions)
    centroids: NDArray[np.float32] = np.asarray(kmeans.centroids, np.float32).reshape(nlist, -1)
    return centroids


def assign(
    directions: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The list of each direction [n], that of the most similar centroid, and the cosine between them [n]."""
    lists = np.empty(len(directions), np.int32)
    cosines = np.empty(len(directions), np.float32)
    for start in range(0, len(directions), _BLOCK):
        products = directions[start : start + _BLOCK] @ centroids.T
        best = products.argmax(axis=1)
        lists[start : start + _BLOCK] = best
        cosines[start : start + _BLOCK] = products[np.arange(len(best)), best]
    return lists, cosines


def nearest_lists(directions: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """All lists in the order in which queries of these directions [n, r] read them, [n, nlist]."""
    order: NDArray[np.int64] = np.argsort(-(directions @ centroids.T), axis=1, kind="stable")
    return order

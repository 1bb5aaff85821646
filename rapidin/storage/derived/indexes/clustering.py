"""Lists of an ``ivf`` index: their centroids, which k-means finds, and the list of a vector.

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
"""Maximum number of bytes of the vectors that lists are made from, unless their number is given."""
LEAST_PER_LIST = 30
"""Minimum number of training vectors for a list; centroids of fewer are noise."""
MOST_PER_LIST = 64
"""Maximum number of training vectors for a list; more hardly improve the centroids."""
_FACTORS = (2, 4, 8)
"""Numbers of lists that are tried, as multiples of √N, where N is the number of samples."""
_ROUNDS = 10
_SEED = 1234
_BLOCK = 4096


def list_counts(rows: int, most_training: int, nlist: int | None) -> list[int]:
    """Return the numbers of lists to try, ascending.

    Args:
        rows: number of live samples of the store.
        most_training: number of vectors that there are for training.
        nlist: number of lists that was asked for; None: the best is measured.

    Raises:
        SettingError: `nlist` is not positive, or there are fewer vectors than lists.
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
    """Return unit centroids [nlist, r] of directions [n, r], n ≥ nlist; equal input gives equal centroids."""
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
    """Return the list of each direction [n], whose centroid is most similar, and the cosine between them [n]."""
    lists = np.empty(len(directions), np.int32)
    cosines = np.empty(len(directions), np.float32)
    for start in range(0, len(directions), _BLOCK):
        products = directions[start : start + _BLOCK] @ centroids.T
        best = products.argmax(axis=1)
        lists[start : start + _BLOCK] = best
        cosines[start : start + _BLOCK] = products[np.arange(len(best)), best]
    return lists, cosines


def nearest_lists(directions: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return all lists in the order in which queries of these directions [n, r] read them, [n, nlist]."""
    order: NDArray[np.int64] = np.argsort(-(directions @ centroids.T), axis=1, kind="stable")
    return order

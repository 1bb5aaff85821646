"""Rotations: the coordinates in which a codec keeps vectors.

n vectors · K numbers in a vector.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rapidin.storage.vectors.codecs.faiss_library import load_faiss
from rapidin.support import openmp_threads

_SEED = 1
_ROTATED_ALONE = 4
"""Maximum number of vectors that one thread rotates; several threads would keep the processors busy afterwards."""


class Rotation(Protocol):
    """An orthogonal map of vectors. Codecs that share the same object keep vectors in the same coordinates."""

    def turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map vectors [n, K] to the codec's coordinates."""
        ...

    def turned_back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map vectors [n, K] from the codec's coordinates to those of RapidGrads."""
        ...


class _Identity:
    def turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors

    def turned_back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors


class _Hadamard:
    """Three rounds of random signs and a Hadamard transform; K is a power of 2.

    FAISS draws the signs from a seed that never changes, because later versions of rapidin read the store, too.
    The signs for each K take 12·K bytes, depend on nothing else, and are kept for the life of the process.
    """

    def turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        threads = 1 if len(vectors) <= _ROTATED_ALONE else None
        with openmp_threads(load_faiss(), threads):
            rotated: NDArray[np.float32] = _signs(vectors.shape[1]).apply(np.ascontiguousarray(vectors))
        return rotated

    def turned_back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        original: NDArray[np.float32] = _signs(vectors.shape[1]).reverse_transform(vectors)
        return original


@cache
def _signs(dimension: int) -> Any:
    return load_faiss().HadamardRotation(dimension, _SEED)


IDENTITY: Rotation = _Identity()
HADAMARD: Rotation = _Hadamard()

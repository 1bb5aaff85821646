"""Stores of random vectors with planted neighbours, of any size: nothing is held but a piece at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.stores import settings_without_model
from rapidin.settings.choices import Bits
from rapidin.storage import NewSample, Store

CLUSTER = 40
"""Vectors around one centre; those of a query's cluster are its planted neighbours."""
_PIECE = 400


@dataclass(frozen=True, slots=True)
class World:
    """Unit vectors in clusters.

    Attributes:
        rows: vectors.
        dimension: K.
        likeness: mean cosine between two vectors of a cluster; 0: no clusters at all.
    """

    rows: int
    dimension: int
    likeness: float = 0.3

    def pieces(self) -> Iterator[np.ndarray]:
        """All vectors, float32, some hundred at a time."""
        for start in range(0, self.rows, _PIECE):
            yield self._vectors(np.arange(start, min(start + _PIECE, self.rows)), seed=start + 1)

    def queries(self, count: int) -> np.ndarray:
        """Vectors [count, K] that are no rows, each of a cluster of its own where there are enough."""
        clusters = np.random.default_rng(0).permutation(max(1, self.rows // CLUSTER))
        return self._vectors(np.resize(clusters, count) * CLUSTER, seed=0)

    def _vectors(self, rows: np.ndarray, seed: int) -> np.ndarray:
        vectors = np.random.default_rng(seed).standard_normal((len(rows), self.dimension), dtype=np.float32)
        vectors *= np.float32(np.sqrt(1 - self.likeness))
        for cluster in np.unique(rows // CLUSTER):
            centre = np.random.default_rng(2**40 + int(cluster)).standard_normal(self.dimension, dtype=np.float32)
            vectors[rows // CLUSTER == cluster] += np.float32(np.sqrt(self.likeness)) * centre
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_store(world: World, bits: Bits, path: Path) -> float:
    """Fill a new store with a world's vectors; seconds of its commits."""
    seconds, row = 0.0, 0
    with Store.create(path, settings_without_model(world.dimension, bits)) as store, store.writer() as writer:
        gathered: list[np.ndarray] = []
        for piece in world.pieces():
            gathered.append(piece)
            count = sum(map(len, gathered))
            if count * world.dimension >= 2**25 or row + count == world.rows:  # as ingest does, 128 MiB
                started = time.perf_counter()
                writer.commit([_sample(row + number) for number in range(count)], np.concatenate(gathered))
                seconds += time.perf_counter() - started
                row += count
                gathered = []
    return seconds


def _sample(row: int) -> NewSample:
    return NewSample(
        id=f"{row:08}",
        prompt=f"Question {row}?",
        response=f"Answer {row}.",
        metadata={"group": row % 10},
        file="data.jsonl",
        row=row + 1,
        tokens=100,
        targets=50,
        truncated=False,
        content_hash=f"{row:032}",
    )

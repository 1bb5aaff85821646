"""Stores of clustered vectors, which indexes are good for: three segments of 200, 256 numbers in a vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rapidin.settings.choices import Bits
from rapidin.settings.store_settings import StoreSettings
from rapidin.storage import Snapshot, Store
from tests.storage.stores import new_sample, store_settings

WIDTH = 256
COUNT = 600
CLUSTERS = 12
KINDS = ("ivf", "rabitq")


def settings_of(bits: Bits, dimension: int = WIDTH) -> StoreSettings:
    return store_settings(dimension, bits)


def clustered(count: int, seed: int, noise: float = 1.0, dimension: int = WIDTH) -> np.ndarray:
    """Vectors around the same `CLUSTERS` directions for every seed."""
    centres = np.random.default_rng(77).standard_normal((CLUSTERS, dimension))
    random = np.random.default_rng(seed)
    chosen = centres[random.integers(0, CLUSTERS, count)]
    return (chosen + noise * random.standard_normal((count, dimension))).astype(np.float32)


def commit(store: Store, start: int, vectors: np.ndarray, scales: np.ndarray | None = None, **values) -> None:
    samples = [
        new_sample(f"s{start + i:04}", metadata={"third": (start + i) % 3}, **values) for i in range(len(vectors))
    ]
    with store.writer() as writer:
        writer.commit(samples, vectors, scales)


def clustered_store(path: Path, bits: int = 16, kinds: tuple[str, ...] = ()) -> Store:
    """An open store with `COUNT` samples, and indexes of these kinds."""
    store = Store.create(path, settings_of(bits))
    vectors = clustered(COUNT, seed=1)
    for start in range(0, COUNT, 200):
        commit(store, start, vectors[start : start + 200])
    for kind in kinds:
        store.build_index(kind)
    return store


def ids(found: list) -> list[list[str]]:
    return [[hit.id for hit in of_query] for of_query in found]


def recall(found: list, truth: list) -> float:
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(ids(found), ids(truth), strict=True)]
    return float(np.mean(shares))


def oracle(snapshot: Snapshot, queries: np.ndarray, k: int, largest: bool = True) -> list[list[tuple[str, float]]]:
    """The k best of all scores, sorted in plain Python."""
    names, scores = snapshot.scores(queries)
    sign = -1 if largest else 1
    ranked = [sorted((sign * float(s), n) for n, s in zip(names, of_query, strict=True)) for of_query in scores]
    return [[(name, sign * score) for score, name in of_query[:k]] for of_query in ranked]

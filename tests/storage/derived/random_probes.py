"""Probes without a model: random vectors that depend on their key only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rapidin.storage import ComputedProbes, ProbeRequest
from tests.storage.derived.clusters import WIDTH


def random_probe(key: int) -> np.ndarray:
    generator = np.random.default_rng(key)
    return (generator.standard_normal(WIDTH) * np.exp(generator.standard_normal())).astype(np.float32)


def random_probes(requests: Sequence[ProbeRequest]) -> Iterator[ComputedProbes]:
    """Compute probes, seven at a time, the last first."""
    places = list(range(len(requests)))[::-1]
    for first in range(0, len(places), 7):
        some = places[first : first + 7]
        vectors = np.stack([random_probe(requests[place].key) for place in some])
        yield ComputedProbes(some, vectors, [3] * len(some))

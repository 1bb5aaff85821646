"""Estimate of how long it takes to compute a store's vectors, from a few of its samples."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rapidin.evaluation.methods import TrainingSet
from rapidin.model import StoreModel
from rapidin.records import CachingCost

SAMPLES = 64
"""Number of samples that are computed again."""


def estimated_caching(
    model: StoreModel, training: TrainingSet, seed: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> CachingCost:
    """Estimate how many seconds caching takes: compute some random samples again, and scale by the tokens.

    A store does not record how long its ingest took, because that may have been on another machine, in many
    processes or in many parts. Vectors are written while others are computed, so writing is not counted.

    Args:
        model: model of the store.
        training: all samples.
        seed: seed of the draw.
        on_progress: function that gets the number of samples done and the number of all.

    Raises:
        RapidinError: a sample cannot be encoded or computed again.
    """
    drawn = random.Random(seed).sample(training.samples, min(SAMPLES, len(training)))
    encoded = [model.encode_stored(sample) for sample in drawn]
    model.rows(encoded[:2])  # work done once, such as the engine's check of itself, is not counted
    seconds = 0.0
    step = 16
    for first in range(0, len(encoded), step):
        started = time.perf_counter()
        model.rows(encoded[first : first + step])
        seconds += time.perf_counter() - started
        if on_progress is not None:
            on_progress(min(first + step, len(encoded)), len(encoded))
    tokens = sum(sample.tokens for sample in training.samples)
    return CachingCost(seconds * tokens / sum(len(one.ids) for one in encoded), len(drawn))

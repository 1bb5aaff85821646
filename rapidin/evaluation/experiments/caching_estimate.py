"""Estimate of the time that computing a store's vectors takes, from a few of its samples."""

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
    """Estimate the seconds that caching takes from samples drawn at random, in proportion to tokens.

    A store does not record how long its ingest took, because that may have been on another machine, in many
    processes or in many parts. Writing to disk happens beside the computing and is not counted.

    Args:
        model: model of the store.
        training: all samples.
        seed: seed of the draw.
        on_progress: function that is told how many samples are done, and of how many.

    Raises:
        RapidinError: a sample cannot be encoded or computed again.
    """
    drawn = random.Random(seed).sample(training.samples, min(SAMPLES, len(training)))
    encoded = [model.encode_stored(sample) for sample in drawn]
    model.vectors(encoded[:2])  # work done once, such as the engine's check of itself, is not counted
    seconds = 0.0
    step = 16
    for first in range(0, len(encoded), step):
        started = time.perf_counter()
        model.vectors(encoded[first : first + step])
        seconds += time.perf_counter() - started
        if on_progress is not None:
            on_progress(min(first + step, len(encoded)), len(encoded))
    tokens = sum(sample.tokens for sample in training.samples)
    return CachingCost(seconds * tokens / sum(len(one.ids) for one in encoded), len(drawn))

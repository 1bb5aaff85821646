"""How long making a store's vectors takes, estimated from a few of its samples."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rapidin.evaluation.methods import TrainingSet
from rapidin.model import StoreModel
from rapidin.records import CachingCost

SAMPLES = 64
"""That are computed anew."""


def estimated_caching(
    model: StoreModel, training: TrainingSet, seed: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> CachingCost:
    """Seconds that caching the samples takes, by tokens, from some drawn at random.

    A store does not keep how long its ingest took, which may have been on another machine, in many processes or in
    many parts. Writing to disk, which goes on beside the computing, is not part of it.

    Args:
        model: of the store.
        training: all samples.
        seed: of the draw.
        on_progress: told how many samples are done, and of how many.

    Raises:
        RapidinError: a sample cannot be encoded or computed again.
    """
    drawn = random.Random(seed).sample(training.samples, min(SAMPLES, len(training)))
    encoded = [model.encode_stored(sample) for sample in drawn]
    model.vectors(encoded[:2])  # what is done once, such as the engine's check of itself, is not counted
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

"""Batches of similar length under a budget of padded tokens that halves itself when memory runs out.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch

from rapidin.gradients.engine import TokenSample, is_out_of_memory
from rapidin.gradients.rapidgrad import RapidGradBatch, RapidGradEngine

logger = logging.getLogger(__name__)

_MOST_SAMPLES = 256
_SKETCH_BYTES = 256 * 2**20
"""Memory that the sketches of one batch (b × K float32) may take."""


class TokenBudget:
    """How much one batch may hold.

    Args:
        tokens: padded tokens (samples × longest sample); None for a value that suits the device.
        device: that computes, for the default.
        dimension: K, which bounds the number of samples.

    Attributes:
        tokens: the present budget.
        samples: the most samples of a batch.
    """

    def __init__(self, tokens: int | None, device: torch.device, dimension: int) -> None:
        self.tokens = tokens if tokens is not None else 16_384 if device.type == "cuda" else 2_048
        self.samples = max(1, min(_MOST_SAMPLES, _SKETCH_BYTES // (4 * dimension)))

    def halve(self, failed: int) -> None:
        """Ask for less after a batch of `failed` padded tokens did not fit."""
        self.tokens = max(1, min(self.tokens, failed) // 2)


def compute_in_batches(
    engine: RapidGradEngine, samples: Sequence[TokenSample], budget: TokenBudget
) -> Iterator[tuple[list[int], RapidGradBatch]]:
    """Compute the RapidGrads of samples, the longest first, so that memory runs out early if it does.

    Yields:
        Positions in `samples`, and their RapidGrads in that order; every position once. A sample that does not fit
        into memory even alone is one of the batch's problems.
    """
    waiting = sorted(range(len(samples)), key=lambda position: len(samples[position].ids), reverse=True)
    before = budget.tokens
    while waiting:
        longest = len(samples[waiting[0]].ids)
        count = max(1, min(budget.tokens // longest, budget.samples, len(waiting)))
        chosen = waiting[:count]
        try:
            result = engine.compute([samples[position] for position in chosen])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            del waiting[:count]
            before = budget.tokens
            yield chosen, result
            continue
        # Outside the except block: there the traceback would keep the failed batch's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if count == 1:
            budget.tokens = before  # it was this sample's fault, not the batches'
            del waiting[0]
            yield chosen, engine.too_large(longest)
        else:
            budget.halve(count * longest)
            logger.warning("out of memory: going on with %d tokens per batch", budget.tokens)

"""Batches of similar length under a budget of padded tokens that halves itself when memory runs out.

`compute_in_batches` lets errors of the model pass; `compute_block` turns those that single samples cause into
problems of these samples, so that a block's other samples are not lost with them.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from rapidin.attribution.gradients import TokenSample
from rapidin.attribution.rapidgrads.rapidgrad_engine import PendingBatch, RapidGradBatch, RapidGradEngine
from rapidin.errors import ComputationError, RapidinError
from rapidin.support import one_line, unless_memory_runs_out

logger = logging.getLogger(__name__)

Key = TypeVar("Key")
Result = TypeVar("Result")

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
        dimension: K.
    """

    def __init__(self, tokens: int | None, device: torch.device, dimension: int) -> None:
        self.tokens = tokens if tokens is not None else 16_384 if device.type == "cuda" else 2_048
        self.samples = max(1, min(_MOST_SAMPLES, _SKETCH_BYTES // (4 * dimension)))
        self.dimension = dimension

    def fitting(self, longest: int, waiting: int) -> int:
        """Tell how many of `waiting` samples make one batch when the longest has so many tokens; at least one."""
        return max(1, min(self.tokens // longest, self.samples, waiting))

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
    yield from in_batches(samples, budget, engine.compute, lambda tokens: engine.too_large(tokens))


def in_batches(
    samples: Sequence[TokenSample],
    budget: TokenBudget,
    compute: Callable[[list[TokenSample]], Result],
    too_large: Callable[[int], Result],
) -> Iterator[tuple[list[int], Result]]:
    """Compute anything of samples, the longest first, in batches that are halved when memory runs out.

    Args:
        samples: any number of them.
        budget: of the batches.
        compute: takes the samples of a batch; gives anything but None.
        too_large: gives the result of a single sample of so many tokens that memory did not suffice for.

    Yields:
        Positions in `samples`, and what `compute` made of them; every position once.
    """
    waiting = sorted(range(len(samples)), key=lambda position: len(samples[position].ids), reverse=True)
    before = budget.tokens
    while waiting:
        longest = len(samples[waiting[0]].ids)
        count = budget.fitting(longest, len(waiting))
        chosen = waiting[:count]
        result = unless_memory_runs_out(partial(compute, [samples[position] for position in chosen]))
        if result is not None:
            del waiting[:count]
            before = budget.tokens
            yield chosen, result
        elif count == 1:
            budget.tokens = before  # it was this sample's fault, not the batches'
            del waiting[0]
            yield chosen, too_large(longest)
        else:
            budget.halve(count * longest)
            logger.warning("out of memory: going on with %d tokens per batch", budget.tokens)


def compute_block(engine: RapidGradEngine, samples: Sequence[TokenSample], budget: TokenBudget) -> RapidGradBatch:
    """Compute the RapidGrads of samples that were put together beforehand, whatever happens to single ones.

    They are one batch unless memory runs out (then they are split) or the model fails on them (then they are
    computed one by one, and those that it fails on are problems).

    Args:
        engine: of the model.
        samples: the longest first.
        budget: halved when memory runs out, and remembered from block to block.

    Returns:
        All samples' RapidGrads in their order.

    Raises:
        RapidinError: the model cannot be used at all.
        ComputationError: the device itself failed; no sample is to blame, and it computes nothing any more.
    """
    try:
        return _gathered(compute_in_batches(engine, samples, budget), samples, budget)
    except RapidinError:
        raise
    except Exception as error:
        _check_device_alive(error)
        logger.debug("the model failed on a batch of %d", len(samples), exc_info=True)
        if len(samples) == 1:
            nothing = np.zeros((1, budget.dimension), dtype=np.float32)
            return RapidGradBatch(nothing, {0: f"the model failed on it: {_in_one_line(error)}"})
    # Outside the except block, whose traceback keeps the failed batch's tensors alive.
    alone = (([position], compute_block(engine, [sample], budget)) for position, sample in enumerate(samples))
    return _gathered(alone, samples, budget)


def compute_blocks(
    engine: RapidGradEngine, blocks: Iterable[tuple[Key, Sequence[TokenSample]] | None], budget: TokenBudget
) -> Iterator[tuple[Key, RapidGradBatch]]:
    """Compute block after block; on a GPU a block is copied to main memory and handed on during the next one.

    Args:
        engine: of the model.
        blocks: whatever tells them apart, and their samples as of `compute_block`; None where the next one is not
            there yet, so that what was begun is to be handed on now.
        budget: as of `compute_block`.

    Raises:
        RapidinError: as of `compute_block`; and whatever `blocks` raises, after the block that was begun before.
    """
    begun: tuple[Key, PendingBatch] | None = None
    try:
        for block in blocks:
            following = None
            if block is not None:
                key, samples = block
                pending = _begun(engine, samples, budget) if engine.device.type == "cuda" else None
                if pending is None:
                    result = compute_block(engine, samples, budget)
                else:
                    following = key, pending
            before, begun = begun, None  # if it fails now, it is not tried again below
            if before is not None:
                yield before[0], _finished(before[1])
            if block is not None and following is None:
                yield key, result
            begun = following
    except Exception:
        # Of the block after it, or of there being one: this one is computed.
        if begun is not None:
            yield begun[0], _finished(begun[1])
        raise
    if begun is not None:
        yield begun[0], _finished(begun[1])


def _begun(engine: RapidGradEngine, samples: Sequence[TokenSample], budget: TokenBudget) -> PendingBatch | None:
    """Begin to compute a block as one batch; None where it does not fit or the model fails on it."""
    if budget.fitting(len(samples[0].ids), len(samples)) < len(samples):
        return None
    try:
        pending = unless_memory_runs_out(partial(engine.begin, samples))
    except RapidinError:
        raise
    except Exception as error:
        _check_device_alive(error)
        logger.debug("the model failed on a batch of %d", len(samples), exc_info=True)
        return None
    if pending is None:
        logger.debug("out of memory with a batch of %d: once more, with an empty cache", len(samples))
    return pending


def _finished(pending: PendingBatch) -> RapidGradBatch:
    """Wait for a block that was begun; only here the kernels' own errors are seen."""
    try:
        return pending.finish()
    except RapidinError:
        raise
    except Exception as error:
        _check_device_alive(error)
        raise


def _gathered(
    parts: Iterable[tuple[list[int], RapidGradBatch]], samples: Sequence[TokenSample], budget: TokenBudget
) -> RapidGradBatch:
    """Put the results of some of a block's samples at a time together, in the block's order."""
    everything = list(range(len(samples)))
    gathered: RapidGradBatch | None = None
    for positions, part in parts:
        if positions == everything:
            return part
        if gathered is None:
            gathered = RapidGradBatch(np.zeros((len(samples), budget.dimension), dtype=np.float32), {})
        gathered.vectors[positions] = part.vectors
        gathered.problems.update({positions[row]: problem for row, problem in part.problems.items()})
    return gathered or RapidGradBatch(np.zeros((0, budget.dimension), dtype=np.float32), {})


def _check_device_alive(error: Exception) -> None:
    """Tell an error of the device from one of the model: after it every further call fails, too."""
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        raise ComputationError(
            f"the device failed: {_in_one_line(error)}; run the same command again, and look at a sample's tokens "
            "with --device cpu if it fails again"
        ) from error


def _in_one_line(error: Exception) -> str:
    """Class and beginning of the message."""
    text = one_line(str(error), 300)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

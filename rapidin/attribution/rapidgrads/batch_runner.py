"""Computing samples in batches that fit into memory; a sample that fails does not take others with it.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from rapidin.attribution.gradients import Differentiated, FisherDraw, TokenSample
from rapidin.attribution.rapidgrads.rapidgrad_engine import PendingBatch, RapidGradBatch, RapidGradEngine
from rapidin.attribution.rapidgrads.token_budget import TokenBudget
from rapidin.errors import ComputationError, RapidinError
from rapidin.support import named_line, unless_memory_runs_out

logger = logging.getLogger(__name__)

Key = TypeVar("Key")
Result = TypeVar("Result")
Sample = TypeVar("Sample", bound=TokenSample)


class BatchRunner:
    """Computes samples in batches, under a budget that only it changes.

    `run` computes the longest samples first, so that memory runs out early if it runs out at all, and then halves
    the budget. `rapidgrads` does this for RapidGrads. `block` turns failures of the model on single samples into
    problems of these samples, so that a block's other samples are not lost. `blocks` lets a GPU compute a block
    while the previous one is copied to main memory.

    Args:
        engine: engine that computes RapidGrads.
        budget: budget to begin with.

    Attributes:
        budget: budget of the next batch, which is smaller than the first after memory has run out.
    """

    def __init__(self, engine: RapidGradEngine, budget: TokenBudget) -> None:
        self._engine = engine
        self.budget = budget

    @property
    def objectives(self) -> int:
        """The number of objectives that a row has K numbers for."""
        return len(self._engine.objectives)

    def run(
        self,
        samples: Sequence[Sample],
        compute: Callable[[list[Sample]], Result],
        too_large: Callable[[Sample], Result],
    ) -> Iterator[tuple[list[int], Result]]:
        """Apply a function to samples in batches, the longest first, and halve the batches when memory runs out.

        Args:
            samples: any number of samples.
            compute: function that takes the samples of a batch and returns anything but None.
            too_large: function that gives the result of a single sample that memory did not suffice for.

        Yields:
            Positions in `samples`, and the result of `compute` for them; every position once.
        """
        waiting = sorted(range(len(samples)), key=lambda position: len(samples[position].ids), reverse=True)
        before = self.budget
        while waiting:
            longest = len(samples[waiting[0]].ids)
            count = self.budget.fitting(longest, len(waiting))
            chosen = waiting[:count]
            result = unless_memory_runs_out(partial(compute, [samples[position] for position in chosen]))
            if result is not None:
                del waiting[:count]
                before = self.budget
                yield chosen, result
            elif count == 1:
                self.budget = before  # this sample alone was too large, so batches may stay as large as they were
                del waiting[0]
                yield chosen, too_large(samples[chosen[0]])
            else:
                self.budget = self.budget.halved(count * longest)
                logger.warning("out of memory: going on with %d tokens per batch", self.budget.tokens)

    def rapidgrads(
        self, samples: Sequence[TokenSample], raw: Differentiated | None = None
    ) -> Iterator[tuple[list[int], RapidGradBatch]]:
        """Compute the RapidGrads of samples; errors of the model are not caught.

        Args:
            samples: any number of samples.
            raw: quantity whose gradients are projected without normalisation, see `RapidGradEngine.compute`.

        Yields:
            Positions in `samples`, and their RapidGrads in that order; every position once. A sample that does not
            fit into memory even alone is one of the batch's problems.
        """

        def compute(chosen: list[TokenSample]) -> RapidGradBatch:
            return self._engine.compute(chosen, raw)

        return self.run(samples, compute, lambda sample: self._failed(too_large_for_memory(sample), raw))

    def block(self, samples: Sequence[TokenSample], draw: FisherDraw | None = None) -> RapidGradBatch:
        """Compute the RapidGrads of a block of samples; samples on which the model fails become problems.

        The block is one batch. If memory runs out, it is split. If the model fails, the samples are computed one
        by one, and each sample that the model fails on is a problem of the result.

        Args:
            samples: samples of the block, the longest first.
            draw: draw whose probes are computed instead of RapidGrads.

        Returns:
            The RapidGrads of all samples, in the order of `samples`.

        Raises:
            RapidinError: The model cannot be used at all.
            ComputationError: The device itself failed, through no fault of a sample, and cannot be used any more.
        """
        try:
            return _gathered(self.rapidgrads(samples, draw), len(samples))
        except RapidinError:
            raise
        except Exception as error:
            _check_device_alive(error)
            logger.debug("the model failed on a batch of %d", len(samples), exc_info=True)
            if len(samples) == 1:
                return self._failed(f"the model failed on it: {named_line(error)}", draw)
        # Outside the except block, whose traceback keeps the failed batch's tensors alive.
        alone = (([position], self.block([sample], draw)) for position, sample in enumerate(samples))
        return _gathered(alone, len(samples))

    def blocks(
        self, blocks: Iterable[tuple[Key, Sequence[TokenSample], FisherDraw | None] | None]
    ) -> Iterator[tuple[Key, RapidGradBatch]]:
        """Compute block after block; a GPU computes a block while the previous one is copied and handed over.

        Args:
            blocks: a block's key, its samples, the longest first, and its draw, if probes are wanted; None if the
                next block is not there yet, so that the block that was begun must be handed over now.

        Yields:
            The key of each block, and its RapidGrads.

        Raises:
            RapidinError: The model cannot be used, see `block`.
            Exception: An error that `blocks` raised; the block that was begun before is handed over first.
        """
        begun: tuple[Key, PendingBatch] | None = None
        try:
            for block in blocks:
                following = None
                if block is not None:
                    key, samples, draw = block
                    pending = self._begun(samples, draw) if self._engine.device.type == "cuda" else None
                    if pending is None:
                        result = self.block(samples, draw)
                    else:
                        following = key, pending
                before, begun = begun, None  # if it fails now, it is not tried again below
                if before is not None:
                    yield before[0], _finished(before[1])
                if block is not None and following is None:
                    yield key, result
                begun = following
        except Exception:
            # The error belongs to the next block, or to fetching it; the block that was begun is not lost.
            if begun is not None:
                yield begun[0], _finished(begun[1])
            raise
        if begun is not None:
            yield begun[0], _finished(begun[1])

    def _begun(self, samples: Sequence[TokenSample], draw: FisherDraw | None) -> PendingBatch | None:
        """Begin to compute a block as one batch; None if it does not fit or the model fails on it."""
        if self.budget.fitting(len(samples[0].ids), len(samples)) < len(samples):
            return None
        try:
            pending = unless_memory_runs_out(partial(self._engine.begin, samples, draw))
        except RapidinError:
            raise
        except Exception as error:
            _check_device_alive(error)
            logger.debug("the model failed on a batch of %d", len(samples), exc_info=True)
            return None
        if pending is None:
            logger.debug("out of memory with a batch of %d: once more, with an empty cache", len(samples))
        return pending

    def _failed(self, problem: str, raw: Differentiated | None) -> RapidGradBatch:
        """Make the result of a single sample that has no RapidGrad."""
        size = self._engine.row_dimension if raw is None else self._engine.dimension
        return RapidGradBatch(np.zeros((1, size), np.float32), {0: problem})


def _gathered(parts: Iterable[tuple[list[int], RapidGradBatch]], count: int) -> RapidGradBatch:
    """Put partial results of a block together, in the order of its samples.

    Args:
        parts: positions in the block, and the result for these samples.
        count: number of samples in the block.
    """
    everything = list(range(count))
    gathered: RapidGradBatch | None = None
    for positions, part in parts:
        if positions == everything:
            return part
        if gathered is None:
            gathered = RapidGradBatch(np.zeros((count, part.vectors.shape[1]), np.float32), {})
        gathered.vectors[positions] = part.vectors
        gathered.problems.update({positions[row]: problem for row, problem in part.problems.items()})
    if gathered is None:
        raise ValueError("a block has samples")
    return gathered


def too_large_for_memory(sample: TokenSample) -> str:
    """Say that memory does not suffice for a single sample."""
    return (
        f"its {len(sample.ids)} tokens do not fit into memory even alone: lower --max-length, or give another "
        "--device or a smaller --dtype"
    )


def _finished(pending: PendingBatch) -> RapidGradBatch:
    """Wait for a block that was begun; errors of the kernels come up only here."""
    try:
        return pending.finish()
    except RapidinError:
        raise
    except Exception as error:
        _check_device_alive(error)
        raise


def _check_device_alive(error: Exception) -> None:
    """Raise a `ComputationError` if the device failed, because then every further call fails, too."""
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        raise ComputationError(
            f"the device failed: {named_line(error)}; run the same command again, and look at a sample's tokens "
            "with --device cpu if it fails again"
        ) from error

"""Blocks of work: samples of similar length that are computed together.

Which samples form a block depends on the data and the settings only, never on the process that computes it or on
its speed. So the results are the same for any number of workers, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rapidin.attribution import FisherDraw, TokenBudget
from rapidin.ingest.spool import PlannedSample, SampleSpool
from rapidin.support import shortened

WINDOW_TOKENS = 2**20
"""Number of tokens at which a window of very long samples ends.

A window is computed in the order of its samples' lengths, not in the order of the data, so it should not be a
large part of the data.
"""

BATCHES_OF_A_BLOCK = 16
"""Maximum number of batches of a block of which several checkpoints compute a section each.

Copying the weights of a model takes about a hundredth of the time of a batch on a CPU, and may take as long as a
batch on a GPU.
"""

_BLOCK_BYTES = 2**27
"""Maximum size in bytes of the RapidGrads of a block of several batches."""

_NAMED_SAMPLES = 8
_LONGEST_ID = 100


@dataclass(frozen=True, slots=True)
class WorkBlock:
    """Samples that are computed together: as one batch, or at several checkpoints as several batches.

    Attributes:
        number: number of the block among all blocks, counted from 0.
        samples: the samples, the longest first.
        draw: draw whose probes are computed instead of RapidGrads.
    """

    number: int
    samples: tuple[PlannedSample, ...]
    draw: FisherDraw | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens of the samples, without padding."""
        return sum(len(planned.ids) for planned in self.samples)

    @property
    def names(self) -> str:
        """Words for the samples in messages: their number, and the ids of all or of the first ones."""
        ids = [repr(shortened(planned.sample.id, _LONGEST_ID)) for planned in self.samples]
        if len(ids) == 1:
            return f"sample {ids[0]}"
        return (
            f"{len(ids)} samples ({', '.join(ids[:_NAMED_SAMPLES])}{', …' if len(ids) > _NAMED_SAMPLES else ''})"
        )


def make_blocks(
    spool: SampleSpool, window: int, budget: TokenBudget, sections: int = 1, window_tokens: int = WINDOW_TOKENS
) -> Iterator[WorkBlock]:
    """Take the samples in windows, sort each window by length and divide it into blocks.

    A block's samples are read from the spool when the block is asked for.

    Args:
        spool: the samples.
        window: number of samples that are sorted together, unless they are very long.
        budget: limits of one batch.
        sections: number of sections of a RapidGrad, see `fitting_blocks`.
        window_tokens: number of tokens at which a window of very long samples ends.

    Raises:
        StoreError: the spool cannot be read.
    """
    for number, positions in enumerate(_cut(spool.lengths, window, budget, sections, window_tokens)):
        yield WorkBlock(number, spool.read(positions))


def _cut(
    lengths: Sequence[int], window: int, budget: TokenBudget, sections: int, window_tokens: int
) -> Iterator[list[int]]:
    """Yield the positions of each block's samples."""
    for chosen in _windows(lengths, window, window_tokens):
        yield from fitting_blocks(chosen, lengths, budget, sections)


def fitting_blocks(
    chosen: Iterable[int], lengths: Sequence[int], budget: TokenBudget, sections: int = 1
) -> Iterator[list[int]]:
    """Divide samples into blocks of batches that fit the budget.

    The longest come first, so that memory runs out early if it runs out at all, and the last blocks are short.

    Args:
        chosen: positions of the samples.
        lengths: number of tokens of every sample, by position.
        budget: limits of one batch.
        sections: number of sections of a RapidGrad. If there are several, the weights in memory change for every
            block, so a block is several batches.

    Yields:
        The positions of a block's samples, the longest first.
    """
    order = sorted(chosen, key=lambda position: lengths[position], reverse=True)
    most = 1 if sections == 1 else BATCHES_OF_A_BLOCK
    block: list[int] = []
    batches = first = 0
    while first < len(order):
        count = budget.fitting(lengths[order[first]], len(order) - first)
        size = 4 * budget.dimension * sections * (len(block) + count)
        if block and (batches == most or size > _BLOCK_BYTES):
            yield block
            block, batches = [], 0
        block = block + order[first : first + count]
        batches += 1
        first += count
    if block:
        yield block


def _windows(lengths: Sequence[int], window: int, window_tokens: int) -> Iterator[list[int]]:
    """Yield the positions of each window's samples."""
    chosen: list[int] = []
    tokens = 0
    for position, length in enumerate(lengths):
        chosen.append(position)
        tokens += length
        if len(chosen) == window or tokens >= window_tokens:
            yield chosen
            chosen, tokens = [], 0
    if chosen:
        yield chosen

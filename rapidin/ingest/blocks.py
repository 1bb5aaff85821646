"""Blocks of work: encoded samples of similar length that are computed together, made ahead of the computing.

Which samples form a block depends on the data and the settings only, never on who computes it or how fast, so
that several workers give what one gives, bit for bit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeAlias

from rapidin.attribution import TokenBudget
from rapidin.text import EncodedSample, TextSample

Sample: TypeAlias = tuple[TextSample, EncodedSample]

_WINDOW_TOKENS = 2**20
"""Where a window of very long samples ends: a token takes some fifty bytes of memory before it is computed."""

_NAMED = 8


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that are computed as one batch.

    Attributes:
        number: place among all blocks, from 0.
        samples: the longest first.
    """

    number: int
    samples: tuple[Sample, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the samples, without padding."""
        return sum(len(encoded.ids) for _, encoded in self.samples)

    @property
    def names(self) -> str:
        """Words for the samples: how many, and the ids of all or of the first ones."""
        ids = [repr(text.id if len(text.id) <= 100 else f"{text.id[:100]}…") for text, _ in self.samples]
        if len(ids) == 1:
            return f"sample {ids[0]}"
        return f"{len(ids)} samples ({', '.join(ids[:_NAMED])}{', …' if len(ids) > _NAMED else ''})"


def make_blocks(samples: Iterator[Sample], window: int, budget: TokenBudget) -> Iterator[Block]:
    """Take samples in windows, sort each window by length and cut it into blocks.

    Args:
        samples: any number of them.
        window: samples that are sorted together, unless they are very long.
        budget: what a block may hold.
    """
    number = 0
    for chosen in _windows(samples, window):
        # Longest first: memory runs out early if it does, and the last blocks are short.
        chosen.sort(key=lambda sample: len(sample[1].ids), reverse=True)
        first = 0
        while first < len(chosen):
            count = budget.fitting(len(chosen[first][1].ids), len(chosen) - first)
            yield Block(number, tuple(chosen[first : first + count]))
            first += count
            number += 1


def _windows(samples: Iterator[Sample], window: int) -> Iterator[list[Sample]]:
    chosen: list[Sample] = []
    tokens = 0
    for sample in samples:
        chosen.append(sample)
        tokens += len(sample[1].ids)
        if len(chosen) == window or tokens >= _WINDOW_TOKENS:
            yield chosen
            chosen, tokens = [], 0
    if chosen:
        yield chosen


class BlocksAhead:
    """Blocks that a thread makes while others are computed: reading and tokenising cost no time of their own.

    Use it in a ``with``, at whose end the thread stops.

    Args:
        samples: read in the thread; None for a row that is passed over, so that the thread can stop there, too.
        window, budget: as of `make_blocks`.
        size: blocks that may wait; the thread also holds one window.
    """

    def __init__(self, samples: Iterator[Sample | None], window: int, budget: TokenBudget, size: int) -> None:
        self._samples = samples
        self._size = size
        self._waiting: deque[Block] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._make, args=(window, budget), name="rapidin-tokenise", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[Block]:
        while (block := self.take()) is not None:
            yield block
        self.check()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to take."""
        with self._changed:
            return self._ended and not self._waiting

    def take(self, timeout: float | None = None) -> Block | None:
        """Return the next block; None where there is none any more, or none within `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout)
            if not self._waiting:
                return None
            self._changed.notify_all()
            return self._waiting.popleft()

    def check(self) -> None:
        """Raise what ended the blocks too early, if anything did; to be called when there are no more.

        Raises:
            DataFileError: a file has changed since the plan was made; and whatever else reading and encoding
                raise.
        """
        if self._error is not None:
            raise self._error

    def _make(self, window: int, budget: TokenBudget) -> None:
        error: BaseException | None = None
        try:
            for block in make_blocks(self._until_stopped(), window, budget):
                self._put(block)
        except BaseException as raised:  # noqa: BLE001 - it is raised where the blocks are taken
            # Also what is no Exception, as a panic of the tokenizer's Rust or a SystemExit of a checkpoint's own
            # code: here it would end the thread alone, and whoever takes would wait for ever.
            error = raised
        with self._changed:
            self._error = error
            self._ended = True
            self._changed.notify_all()

    def _until_stopped(self) -> Iterator[Sample]:
        for sample in self._samples:
            if self._stopping:
                return
            if sample is not None:
                yield sample

    def _put(self, block: Block) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._size or self._stopping)
            if not self._stopping:
                self._waiting.append(block)
                self._changed.notify_all()

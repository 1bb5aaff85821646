"""Commits in the background: while one segment is written and synced, RapidGrads are gathered for the next one.

Two buffers take turns. At most one commit is under way, in a single thread, so the store has one writer.

Shape letters: n samples · K projection dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rapidin.records import RowFailure
from rapidin.storage import NewSample, StoreWriter


@dataclass(slots=True)
class IngestCounts:
    """Counts of committed samples, and the rows that could not be used.

    Attributes:
        added: number of new samples.
        replaced: number of samples that took the place of a stored one with the same id.
        tokens: number of tokens of added and replaced samples, without padding.
        truncated: number of added and replaced samples that were cut to the maximum length.
        failures: rows whose gradient could not be used.
    """

    added: int = 0
    replaced: int = 0
    tokens: int = 0
    truncated: int = 0
    failures: list[RowFailure] = field(default_factory=list)


class Committer:
    """Gathers samples with their RapidGrads and commits them a segment at a time.

    Use it in a ``with`` statement; when that ends, no commit is under way any more. The function `committed` is
    called, and errors are raised, in the caller's thread only.

    Args:
        writer: writer of the store.
        dimension: projection dimension K.
        capacity: number of samples of a segment.
        unit_norm: whether all vectors have a norm near 1, as half precision needs; if not, they are stored with
            scales.
        committed: function that is called after each commit, with its samples.
    """

    def __init__(
        self,
        writer: StoreWriter,
        dimension: int,
        capacity: int,
        unit_norm: bool,
        committed: Callable[[list[NewSample]], None],
    ) -> None:
        self._writer = writer
        self._unit_norm = unit_norm
        self._committed = committed
        # The two buffers last for the whole run, because arrays of this size that come and go make the process
        # grow. One number says which of them gathers, so that an interruption comes either before they change
        # their parts or after it.
        self._segments = (_Segment(capacity, dimension), _Segment(capacity, dimension))
        self._turn = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="rapidin-commit")
        # This starts the thread now. If an interruption cut its start short later on, the executor would start a
        # second one.
        self._executor.submit(int)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        interruption: KeyboardInterrupt | None = None
        while True:
            try:
                # The writer's lock is released next, so this must wait for a commit under way in any case.
                self._executor.shutdown()
                break
            except KeyboardInterrupt as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def add(self, sample: NewSample, vector: NDArray[np.float32]) -> None:
        """Take one sample with its RapidGrad [K], which is copied.

        Raises:
            StoreError: the previous commit failed.
        """
        if self._gathering.full:
            self.begin()
        self._gathering.add(sample, vector)

    @property
    def _gathering(self) -> _Segment:
        """The segment that new samples are added to."""
        return self._segments[self._turn]

    @property
    def _writing(self) -> _Segment:
        """The segment that does not gather; it is empty, or its samples wait for their commit."""
        return self._segments[1 - self._turn]

    def begin(self) -> None:
        """Begin to commit the gathered samples, after the previous commit has ended.

        Raises:
            StoreError: the previous commit failed.
        """
        self._settle()
        if self._gathering.samples:
            self._turn = 1 - self._turn
            self._submit(self._writing)

    def look(self) -> None:
        """Call `committed` if a commit has ended meanwhile.

        Raises:
            StoreError: that commit failed.
        """
        if self._writing.future is not None and self._writing.future.done():
            self._settle()

    def finish(self) -> None:
        """Commit everything and wait for it.

        Raises:
            StoreError: a commit failed.
        """
        self.begin()
        self._settle()

    def retry(self) -> None:
        """Try once more to commit a segment whose commit failed, or was interrupted before it began."""
        writing = self._writing
        future = writing.future
        if writing.samples and (future is None or (future.done() and future.exception() is not None)):
            self._submit(writing)

    def _submit(self, segment: _Segment) -> None:
        # None comes first: if an interruption prevents the second assignment, the old future must not stand for
        # the new one.
        segment.future = None
        segment.future = self._executor.submit(self._commit, segment)

    def _commit(self, segment: _Segment) -> None:
        """Store a segment, in the thread; if it was submitted twice, the second call does nothing."""
        if segment.stored is segment.samples:
            return
        samples = list(segment.samples)
        vectors = segment.vectors[: len(samples)]
        scales = None if self._unit_norm else np.linalg.norm(vectors, axis=1)
        self._writer.commit(samples, vectors, scales)
        segment.stored = segment.samples

    def _settle(self) -> None:
        """Wait for the commit under way; if it failed, its samples stay, so that `retry` can commit them."""
        writing = self._writing
        if not writing.samples:
            return
        if writing.future is None:
            self._submit(writing)  # an interruption came before it was submitted, or before its future was kept
        if writing.future is not None:
            writing.future.result()
        samples = writing.samples
        # The order matters: a segment without a future is submitted again, and one that is stored is not stored
        # twice.
        writing.future = None
        writing.samples = []
        self._committed(samples)


class _Segment:
    """A buffer of RapidGrads, float32 [capacity, K], and the samples of its first rows.

    Attributes:
        samples: samples of the first rows, a new list after each commit.
        future: future of the commit that is under way or done; None if there is none, or if an interruption came
            before its future was kept.
        stored: list of the samples that were stored last; only the thread sets it.
        vectors: RapidGrads, float32 [capacity, K].
    """

    def __init__(self, capacity: int, dimension: int) -> None:
        self.vectors = np.empty((capacity, dimension), dtype=np.float32)
        self.samples: list[NewSample] = []
        self.future: Future[None] | None = None
        self.stored: list[NewSample] | None = None

    @property
    def full(self) -> bool:
        return len(self.samples) == len(self.vectors)

    def add(self, sample: NewSample, vector: NDArray[np.float32]) -> None:
        self.vectors[len(self.samples)] = vector
        self.samples.append(sample)

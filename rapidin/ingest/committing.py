"""Commits in the background: while one segment is written and synced, the next one's RapidGrads are gathered.

Two buffers take turns. At most one commit is under way, by one thread, so the store has a single writer as before.

Shape letters: n samples · K projection dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rapidin.storage import NewSample, StoreWriter


class Committer:
    """Gathers samples with their RapidGrads and commits them a segment at a time.

    Use it in a ``with``; at its end no commit is under way any more. What it calls back, and what it raises, comes
    in the caller's thread.

    Args:
        writer: of the store.
        dimension: K.
        capacity: samples of a segment.
        normalised: whether all vectors have a norm near 1, which half precision holds well; others are scaled.
        committed: called after each commit, with its samples.
    """

    def __init__(
        self,
        writer: StoreWriter,
        dimension: int,
        capacity: int,
        normalised: bool,
        committed: Callable[[list[NewSample]], None],
    ) -> None:
        self._writer = writer
        self._normalised = normalised
        self._committed = committed
        # Two buffers for the whole run: arrays of this size that come and go make the process grow.
        self._gathering = _Segment(capacity, dimension)
        self._idle = _Segment(capacity, dimension)
        self._writing: _Segment | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="rapidin-commit")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        interruption: KeyboardInterrupt | None = None
        while True:
            try:
                # The writer's lock is released next, so a commit under way is waited for, come what may.
                self._executor.shutdown()
                break
            except KeyboardInterrupt as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def add(self, sample: NewSample, vector: NDArray[np.float32]) -> None:
        """Take one sample with its RapidGrad [K], which is copied.

        Raises:
            StoreError: the commit before failed.
        """
        if self._gathering.full:
            self.begin()
        self._gathering.add(sample, vector)

    def begin(self) -> None:
        """Begin to commit what was gathered, after the commit before has ended.

        Raises:
            StoreError: the commit before failed.
        """
        self._settle()
        if self._gathering.samples:
            # In this order: wherever an interruption strikes, no buffer is forgotten.
            self._writing = self._gathering
            self._gathering = self._idle
            self._idle = self._writing
            self._submit(self._writing)

    def look(self) -> None:
        """Tell of a commit that has ended meanwhile.

        Raises:
            StoreError: it failed.
        """
        if self._writing is not None and self._writing.future is not None and self._writing.future.done():
            self._settle()

    def finish(self) -> None:
        """Commit everything and wait for it.

        Raises:
            StoreError: a commit failed.
        """
        self.begin()
        self._settle()

    def retry(self) -> None:
        """Try a commit that has failed, or was interrupted before it began, once more."""
        writing = self._writing
        if writing is not None:
            future = writing.future
            if future is None or (future.done() and future.exception() is not None):
                self._submit(writing)

    def _submit(self, segment: _Segment) -> None:
        segment.future = self._executor.submit(self._commit, segment)

    def _commit(self, segment: _Segment) -> None:
        """Store a segment; in the thread."""
        vectors = segment.vectors[: len(segment.samples)]
        scales = None if self._normalised else np.linalg.norm(vectors, axis=1)
        self._writer.commit(segment.samples, vectors, scales)

    def _settle(self) -> None:
        """Wait for the commit under way; one that failed stays, so that `retry` can try it again."""
        writing = self._writing
        if writing is None:
            return
        if writing.future is not None:
            writing.future.result()
        self._writing = None
        samples, writing.samples, writing.future = writing.samples, [], None
        self._committed(samples)


class _Segment:
    """A buffer of RapidGrads, float32 [capacity, K], and the samples of its first rows."""

    def __init__(self, capacity: int, dimension: int) -> None:
        self.vectors = np.empty((capacity, dimension), dtype=np.float32)
        self.samples: list[NewSample] = []
        self.future: Future[None] | None = None

    @property
    def full(self) -> bool:
        return len(self.samples) == len(self.vectors)

    def add(self, sample: NewSample, vector: NDArray[np.float32]) -> None:
        self.vectors[len(self.samples)] = vector
        self.samples.append(sample)

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
        # Two buffers for the whole run: arrays of this size that come and go make the process grow. One number
        # says which of them gathers, so that an interruption strikes before they change their parts or after it.
        self._segments = (_Segment(capacity, dimension), _Segment(capacity, dimension))
        self._turn = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="rapidin-commit")
        # Starts the thread: if an interruption cut that short later on, the executor would start a second one.
        self._executor.submit(int)

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

    @property
    def _gathering(self) -> _Segment:
        return self._segments[self._turn]

    @property
    def _writing(self) -> _Segment:
        """The other one; it is empty, or its samples are to be committed."""
        return self._segments[1 - self._turn]

    def begin(self) -> None:
        """Begin to commit what was gathered, after the commit before has ended.

        Raises:
            StoreError: the commit before failed.
        """
        self._settle()
        if self._gathering.samples:
            self._turn = 1 - self._turn
            self._submit(self._writing)

    def look(self) -> None:
        """Tell of a commit that has ended meanwhile.

        Raises:
            StoreError: it failed.
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
        """Try a commit that has failed, or was interrupted before it began, once more."""
        writing = self._writing
        future = writing.future
        if writing.samples and (future is None or (future.done() and future.exception() is not None)):
            self._submit(writing)

    def _submit(self, segment: _Segment) -> None:
        # First None: if an interruption has the new future forgotten, the old one must not stand for it.
        segment.future = None
        segment.future = self._executor.submit(self._commit, segment)

    def _commit(self, segment: _Segment) -> None:
        """Store a segment, unless that is done: it may be submitted twice; in the thread."""
        if segment.stored is segment.samples:
            return
        samples = list(segment.samples)
        vectors = segment.vectors[: len(samples)]
        scales = None if self._normalised else np.linalg.norm(vectors, axis=1)
        self._writer.commit(samples, vectors, scales)
        segment.stored = segment.samples

    def _settle(self) -> None:
        """Wait for the commit under way; one that failed stays, so that `retry` can try it again."""
        writing = self._writing
        if not writing.samples:
            return
        if writing.future is None:
            self._submit(writing)  # an interruption came before it, or had its future forgotten
        if writing.future is not None:
            writing.future.result()
        samples = writing.samples
        # In this order: a segment without a future is submitted again, and one that is stored is not stored twice.
        writing.future = None
        writing.samples = []
        self._committed(samples)


class _Segment:
    """A buffer of RapidGrads, float32 [capacity, K], and the samples of its first rows.

    Attributes:
        samples: a new list after each commit.
        future: of the commit under way or done, None if there is none or nobody knows of it any more.
        stored: the list whose samples were stored last; only the thread sets it.
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

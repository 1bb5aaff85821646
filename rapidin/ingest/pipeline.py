"""The ingest pipeline: it takes blocks of planned samples, and commits their RapidGrads.

The computer computes while a thread commits. The caller's thread reads the blocks, passes the results on to the
committer and tells the listener. However a run ends, the RapidGrads that were computed are committed first.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from rapidin.attribution import RapidGradBatch, TokenBudget
from rapidin.ingest.blocks import WorkBlock, make_blocks
from rapidin.ingest.committing import Committer, IngestCounts
from rapidin.ingest.compute import Computer
from rapidin.ingest.failures import Failures
from rapidin.ingest.spool import SampleSpool
from rapidin.records import IngestListener, RowFailure
from rapidin.settings import StoreSettings
from rapidin.storage import NewSample, StoreWriter

_BUFFER_BYTES = 256 * 2**20
"""Size in bytes of the buffers of RapidGrads that wait for their commit.

One half is for the next segment and one half for the segment that is being written.
"""

_LARGEST_WINDOW = 4_096
_SMALLEST_WINDOW = 512
_SECONDS_BETWEEN_COMMITS = 120.0
"""Maximum time between commits, which is the most work that is lost if the process is killed."""


class IngestPipeline:
    """Lets a computer compute RapidGrads, and commits them to one store.

    Args:
        computer: computer that was started with the store's settings.
        budget: limits of one batch.
        settings: the store's settings.
    """

    def __init__(self, computer: Computer, budget: TokenBudget, settings: StoreSettings) -> None:
        self._computer = computer
        self._budget = budget
        self._gradient, self._projection = settings.gradient, settings.projection
        fitting = _BUFFER_BYTES // (4 * settings.projection.dimension)
        self._capacity = max(1, min(fitting // 2, _LARGEST_WINDOW))
        self._window = max(min(fitting, _LARGEST_WINDOW), _SMALLEST_WINDOW)
        self._sections = settings.model.states
        self._counts = IngestCounts()
        self._replacing: set[str] = set()

    def run(
        self,
        samples: SampleSpool,
        writer: StoreWriter,
        listener: IngestListener,
        skip_errors: bool,
        stored_before: int = 0,
    ) -> IngestCounts:
        """Compute and commit all samples.

        Args:
            samples: the plan's new samples.
            writer: writer of the store.
            listener: listener that is told about progress and commits.
            skip_errors: whether samples whose gradient cannot be used are left out; otherwise the error of the
                first one is raised.
            stored_before: number of samples of the same data that the store holds already.

        Raises:
            GradientError: a gradient cannot be used; all RapidGrads that were computed before are committed.
            ModelError: all samples fail in the same way, so that no row can mend it.
            ComputationError: a worker or device failed beyond repair; all RapidGrads that were computed before are
                committed.
            StoreError: a commit failed.
        """

        def committed(stored: list[NewSample]) -> None:
            self._count(stored)
            listener.committed(len(stored))

        self._failures = Failures(samples.lengths, skip_errors, stored_before)
        dimension, unit_norm = self._projection.dimension, self._gradient.normalise_layers
        blocks = make_blocks(samples, self._window, self._budget, self._sections)
        with Committer(writer, dimension, self._capacity, unit_norm, committed) as committer:
            try:
                self._compute(blocks, committer, listener)
                self._failures.finish()
                committer.finish()
            except BaseException:
                # Whatever ended the run, all computed RapidGrads are kept, including those of a failed commit.
                left = self._computer.stop()
                committer.retry()
                for block, batch in left:
                    self._keep(block, batch, committer)
                committer.finish()
                raise
        return self._counts

    def _compute(self, blocks: Iterator[WorkBlock], committer: Committer, listener: IngestListener) -> None:
        """Compute blocks, hand their RapidGrads to the committer and begin a commit now and then."""
        last_commit = time.monotonic()
        for block, batch in self._computer.compute(blocks):
            self._keep(block, batch, committer)
            self._failures.look_at(block, batch.problems)
            for row in sorted(batch.problems):
                sample = block.samples[row].sample
                self._counts.failures.append(RowFailure(sample.file, sample.row, sample.id, batch.problems[row]))
            listener.advanced(len(block.samples), block.tokens)
            committer.look()
            if time.monotonic() - last_commit > _SECONDS_BETWEEN_COMMITS:
                committer.begin()
                last_commit = time.monotonic()

    def _keep(self, block: WorkBlock, batch: RapidGradBatch, committer: Committer) -> None:
        """Hand those samples of a block to the committer whose gradient can be used."""
        for row, planned in enumerate(block.samples):
            if row not in batch.problems:
                if planned.replaces:
                    self._replacing.add(planned.sample.id)
                committer.add(planned.sample, batch.vectors[row])

    def _count(self, stored: list[NewSample]) -> None:
        """Count samples that were committed."""
        for sample in stored:
            if sample.id in self._replacing:
                self._replacing.remove(sample.id)
                self._counts.replaced += 1
            else:
                self._counts.added += 1
            self._counts.tokens += sample.tokens
            self._counts.truncated += sample.truncated

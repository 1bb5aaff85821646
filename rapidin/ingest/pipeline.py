"""The caching stage: encoded samples in, committed RapidGrads out.

Three things go on at a time: a thread reads and tokenises ahead, the computer computes, and a thread commits. The
caller's thread joins them and tells the listener; whatever ends the run, what was computed is committed first.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from rapidin.attribution import RapidGradBatch, TokenBudget
from rapidin.errors import GradientError
from rapidin.ingest.blocks import Block, BlocksAhead
from rapidin.ingest.committing import Committer
from rapidin.ingest.compute import Computer
from rapidin.ingest.counts import CachingCounts
from rapidin.ingest.planning import Plan
from rapidin.records import IngestListener, RowFailure
from rapidin.settings import StoreSettings
from rapidin.storage import NewSample, StoreWriter
from rapidin.text import EncodedSample, TextSample

_BUFFER_BYTES = 256 * 2**20
"""Memory for RapidGrads that wait for their commit, half of it for the next segment and half for the one that is
being written; the segment on disk is half as large again."""

_LARGEST_WINDOW = 4_096
_SMALLEST_WINDOW = 512
_BLOCKS_AHEAD_PER_PROCESS = 4
_SECONDS_BETWEEN_COMMITS = 120.0
"""The most work that a kill can cost."""


class Caching:
    """Has RapidGrads computed and commits them to one store.

    Args:
        computer: that computes them.
        settings: of the store.
        tokens_per_batch: padded tokens of a batch, None for a value that suits the device.

    Raises:
        ModelError, SettingError: the model or K does not fit the settings, see `RapidGradEngine`.
    """

    def __init__(self, computer: Computer, settings: StoreSettings, tokens_per_batch: int | None) -> None:
        self._computer = computer
        self._projection = settings.projection
        self._budget: TokenBudget = computer.start(settings, tokens_per_batch)
        fitting = _BUFFER_BYTES // (4 * settings.projection.dimension)
        self._capacity = max(1, min(fitting // 2, _LARGEST_WINDOW))
        self._window = max(min(fitting, _LARGEST_WINDOW), _SMALLEST_WINDOW)
        self._counts = CachingCounts()

    def run(
        self,
        samples: Iterator[tuple[TextSample, EncodedSample] | None],
        plan: Plan,
        writer: StoreWriter,
        listener: IngestListener,
        skip_errors: bool,
    ) -> CachingCounts:
        """Compute and commit all samples.

        Args:
            samples: the plan's new samples, None for other rows; read in another thread.
            plan: tells which of them replace a stored one.
            writer: of the store.
            listener: told about progress and commits.
            skip_errors: leave samples out whose gradient cannot be used, instead of raising.

        Raises:
            GradientError: a gradient cannot be used; what was computed before is committed.
            ComputationError: a worker or device failed beyond repair; the same.
        """

        def committed(stored: list[NewSample]) -> None:
            self._count(stored, plan)
            listener.committed(len(stored))

        ahead = _BLOCKS_AHEAD_PER_PROCESS * self._computer.processes
        dimension, normalised = self._projection.dimension, self._projection.normalise_layers
        with (
            Committer(writer, dimension, self._capacity, normalised, committed) as committer,
            BlocksAhead(samples, self._window, self._budget, ahead) as blocks,
        ):
            try:
                self._compute(blocks, committer, listener, skip_errors)
                committer.finish()
            except BaseException:
                # Whatever ended the run, what is computed is kept, also what a failed commit was to store.
                left = self._computer.stop()
                committer.retry()
                for block, batch in left:
                    self._keep(block, batch, committer)
                committer.finish()
                raise
        return self._counts

    def _compute(
        self, blocks: BlocksAhead, committer: Committer, listener: IngestListener, skip_errors: bool
    ) -> None:
        last_commit = time.monotonic()
        for block, batch in self._computer.compute(blocks):
            self._keep(block, batch, committer)
            for row in sorted(batch.problems):
                text, problem = block.samples[row][0], batch.problems[row]
                if not skip_errors:
                    raise GradientError(
                        text.id,
                        f"{problem} ({text.file}, row {text.row}); mend the row, or leave it out "
                        "with --on-error skip",
                    )
                self._counts.failures.append(RowFailure(text.file, text.row, text.id, problem))
            listener.advanced(len(block.samples), block.tokens)
            committer.look()
            if time.monotonic() - last_commit > _SECONDS_BETWEEN_COMMITS:
                committer.begin()
                last_commit = time.monotonic()

    def _keep(self, block: Block, batch: RapidGradBatch, committer: Committer) -> None:
        """Have those of a block's samples stored whose gradient can be used."""
        for row, (text, encoded) in enumerate(block.samples):
            if row not in batch.problems:
                committer.add(_new_sample(text, encoded), batch.vectors[row])

    def _count(self, stored: list[NewSample], plan: Plan) -> None:
        replaced = sum(plan.new[sample.file, sample.row].replaces for sample in stored)
        self._counts.replaced += replaced
        self._counts.added += len(stored) - replaced
        self._counts.tokens += sum(sample.tokens for sample in stored)
        self._counts.truncated += sum(sample.truncated for sample in stored)


def _new_sample(text: TextSample, encoded: EncodedSample) -> NewSample:
    return NewSample(
        id=text.id,
        prompt=encoded.prompt,
        response=encoded.response,
        metadata=text.metadata,
        file=text.file,
        row=text.row,
        tokens=len(encoded.ids),
        targets=sum(encoded.targets),
        truncated=encoded.truncated,
        content_hash=text.content_hash,
        target_spans=encoded.target_spans,
    )

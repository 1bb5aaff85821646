"""The caching stage: encoded samples in, committed RapidGrads out.

Samples are taken in windows, sorted by length within a window, computed in batches and committed a segment at a
time; whatever ends the run, what was computed is committed first.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Self

import numpy as np

from rapidin.errors import GradientError
from rapidin.gradients import RapidGradEngine, TokenBudget, compute_in_batches
from rapidin.ingest.counts import CachingCounts
from rapidin.ingest.plan import Plan
from rapidin.model.loading import LoadedModel
from rapidin.progress import IngestListener
from rapidin.records import RowFailure
from rapidin.settings import StoreSettings
from rapidin.storage import NewSample, StoreWriter
from rapidin.text import EncodedSample, TextSample

_BUFFER_BYTES = 256 * 2**20
"""Memory for RapidGrads that wait for their commit; a segment on disk is half as large."""

_LARGEST_WINDOW = 4_096
_SMALLEST_WINDOW = 512
_SECONDS_BETWEEN_COMMITS = 120.0
"""The most work that a kill can cost."""


class Caching:
    """Computes RapidGrads with one model and commits them to one store.

    Args:
        loaded: the model; held until `close`.
        settings: of the store.
        tokens_per_batch: padded tokens of a batch, None for a value that suits the device.

    Raises:
        ModelError, SettingError: the model or K does not fit the settings, see `RapidGradEngine`.
    """

    def __init__(self, loaded: LoadedModel, settings: StoreSettings, tokens_per_batch: int | None) -> None:
        dimension = settings.projection.dimension
        self._engine = RapidGradEngine(loaded.model, settings.parameters, settings.projection)
        self._layer_norm = settings.projection.layer_norm
        self._budget = TokenBudget(tokens_per_batch, self._engine.device, dimension)
        capacity = max(1, min(_BUFFER_BYTES // (4 * dimension), _LARGEST_WINDOW))
        self._window = max(capacity, _SMALLEST_WINDOW)
        # One buffer for the whole run: arrays of this size that come and go make the process grow.
        self._vectors = np.empty((capacity, dimension), dtype=np.float32)
        self._waiting: list[tuple[NewSample, bool]] = []
        self._counts = CachingCounts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()

    def run(
        self,
        samples: Iterator[tuple[TextSample, EncodedSample]],
        plan: Plan,
        writer: StoreWriter,
        listener: IngestListener,
        skip_errors: bool,
    ) -> CachingCounts:
        """Compute and commit all samples.

        Args:
            samples: the plan's new samples.
            plan: tells which of them replace a stored one.
            writer: of the store.
            listener: told about progress and commits.
            skip_errors: leave samples out whose gradient cannot be used, instead of raising.

        Raises:
            GradientError: a gradient cannot be used; what was computed before is committed.
        """
        try:
            while window := list(islice(samples, self._window)):
                self._compute(window, plan, writer, listener, skip_errors)
            self._commit(writer, listener)
        except BaseException:
            # Whatever ended the run, what is computed is kept, also what an interrupted commit was to store.
            self._commit(writer, listener)
            raise
        return self._counts

    def _compute(
        self,
        window: list[tuple[TextSample, EncodedSample]],
        plan: Plan,
        writer: StoreWriter,
        listener: IngestListener,
        skip_errors: bool,
    ) -> None:
        last_commit = time.monotonic()
        for positions, batch in compute_in_batches(self._engine, [encoded for _, encoded in window], self._budget):
            for row, position in enumerate(positions):
                text, encoded = window[position]
                if row in batch.problems:
                    if not skip_errors:
                        raise GradientError(
                            text.id,
                            f"{batch.problems[row]} ({text.file}, row {text.row}); mend the row, or leave it out "
                            "with --on-error skip",
                        )
                    self._counts.failures.append(RowFailure(text.file, text.row, text.id, batch.problems[row]))
                    continue
                self._vectors[len(self._waiting)] = batch.vectors[row]
                self._waiting.append((_new_sample(text, encoded), plan.new[text.file, text.row].replaces))
                if len(self._waiting) == len(self._vectors):
                    self._commit(writer, listener)
                    last_commit = time.monotonic()
            listener.advanced(len(positions), sum(len(window[position][1].ids) for position in positions))
            if time.monotonic() - last_commit > _SECONDS_BETWEEN_COMMITS:
                self._commit(writer, listener)
                last_commit = time.monotonic()

    def _commit(self, writer: StoreWriter, listener: IngestListener) -> None:
        """Store what waits, in one segment."""
        waiting = self._waiting
        if not waiting:
            return
        vectors = self._vectors[: len(waiting)]
        # Normalised gradients have a norm near 1, which half precision holds well; others may have any.
        scales = None if self._layer_norm else np.linalg.norm(vectors, axis=1)
        writer.commit([sample for sample, _ in waiting], vectors, scales)
        self._waiting = []  # only now: a commit that was interrupted is tried once more
        replaced = sum(replaces for _, replaces in waiting)
        self._counts.replaced += replaced
        self._counts.added += len(waiting) - replaced
        self._counts.tokens += sum(sample.tokens for sample, _ in waiting)
        self._counts.truncated += sum(sample.truncated for sample, _ in waiting)
        listener.committed(len(waiting))


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
    )

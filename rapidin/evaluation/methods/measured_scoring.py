"""Scoring by one method after another, which measures time and memory and computes nothing twice.

Every method scores the first query by itself, because that is the time that a user would wait. It scores the other
queries in groups, which shows how much time is saved when many are asked together. All scores are kept. The work
that a scorer does once for the training samples, in its `prepare`, is measured separately.

Shape letters: q queries · n samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import GradientError
from rapidin.evaluation.methods.registry import METHODS, Context
from rapidin.evaluation.methods.saved_scores import Measured, SavedScores, data_digest, key_of
from rapidin.evaluation.methods.scorer import AskedQuery, Scorer, StepProgress, TrainingSet
from rapidin.evaluation.metrics import Meter

QUERIES_AT_ONCE = 32
"""Number of queries that are scored and saved together after the first."""


@runtime_checkable
class PreparedScorer(Protocol):
    """A scorer that does some work beforehand, once for all queries."""

    def prepare(self, training: TrainingSet, on_progress: StepProgress | None = None) -> None:
        """Do the work that these training samples need once."""


@dataclass(frozen=True, slots=True)
class MethodScores:
    """Scores of a method, with the time and memory that they took.

    Attributes:
        name: name of the method.
        scores: scores, float32 [q, n].
        preparation: seconds of work on the training samples that is done once; 0 if there is none.
        seconds_alone: seconds for the first query when it is asked by itself; None if it was not.
        seconds_together: seconds for each query when all are asked in groups of `QUERIES_AT_ONCE`.
        memory: maximum number of bytes by which the process grew.
        device_memory: maximum number of bytes taken on GPUs; None if none was used.
        resumed: whether earlier runs have computed everything.
    """

    name: str
    scores: NDArray[np.float32]
    preparation: float
    seconds_alone: float | None
    seconds_together: float
    memory: int | None
    device_memory: int | None
    resumed: bool

    def seconds(self, queries: int) -> float:
        """Seconds for all queries, with the work that is done once."""
        alone = self.seconds_together if self.seconds_alone is None else self.seconds_alone
        return alone + self.seconds_together * (queries - 1) + self.preparation


class ScoringRun:
    """Scores the training samples by one method after the other.

    Args:
        context: objects from which scorers are made.
        training: the n training samples.
        saved: scores of earlier runs.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.
        alone: whether the first query is asked by itself, which doubles the time of methods that pass over all
            training samples for every group.
    """

    def __init__(
        self,
        context: Context,
        training: TrainingSet,
        saved: SavedScores,
        on_progress: StepProgress | None = None,
        alone: bool = True,
    ) -> None:
        self._alone = alone
        self._context = context
        self._training = training
        self._saved = saved
        self._on_progress = on_progress
        self._data = data_digest(context.store.settings, training)
        with context.store.snapshot() as snapshot:
            self._curvature = snapshot.curvature_version()
        self._scorers: dict[str, Scorer] = {}
        self._preparation: dict[str, Measured] = {}

    def scores(self, name: str, queries: Sequence[AskedQuery]) -> MethodScores:
        """Score every training sample for every query by the named method.

        Raises:
            RapidinError: something cannot be scored, or a package is missing.
        """
        settings = METHODS[name].settings(self._context.options)
        if METHODS[name].cached:
            settings = {**settings, "curvature": self._curvature}
        parts: list[Measured] = []
        for group in _groups(queries, self._alone):
            key = key_of(self._data, name, settings, group)
            found = self._saved.load(key, len(group), len(self._training))
            if found is None:
                found = self._computed(name, group)
                self._saved.save(key, found)
            parts.append(found)
        return _joined(name, parts, self._alone)

    def _computed(self, name: str, group: Sequence[AskedQuery]) -> Measured:
        scorer = self._scorer(name)
        with Meter() as meter:
            scores = scorer.scores(group, self._training, self._on_progress)
        wrong = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(wrong):
            raise GradientError(
                group[wrong[0]].query.id, f"its scores by {name} are not finite: leave this query out", "query"
            )
        prepared = self._preparation[name]
        memory = [value for value in (meter.memory, prepared.memory) if value is not None]
        devices = [value for value in (meter.device_memory, prepared.device_memory) if value is not None]
        return Measured(scores, meter.seconds, prepared.seconds, max(memory), max(devices, default=None))

    def _scorer(self, name: str) -> Scorer:
        """The scorer of a method; it is made and prepared at its first use."""
        if name not in self._scorers:
            with Meter() as meter:
                scorer = METHODS[name].make(self._context)
                prepares = isinstance(scorer, PreparedScorer)
                if isinstance(scorer, PreparedScorer):
                    scorer.prepare(self._training, self._on_progress)
            nothing = np.empty((0, 0), dtype=np.float32)
            seconds = meter.seconds if prepares else 0.0
            self._preparation[name] = Measured(nothing, seconds, seconds, meter.memory, meter.device_memory)
            self._scorers[name] = scorer
        return self._scorers[name]


def _groups(queries: Sequence[AskedQuery], alone: bool) -> Iterator[Sequence[AskedQuery]]:
    """Yield the first query by itself if that is wanted, then the others in groups."""
    first = 1 if alone else 0
    if alone:
        yield queries[:1]
    for start in range(first, len(queries), QUERIES_AT_ONCE):
        yield queries[start : start + QUERIES_AT_ONCE]


def _joined(name: str, parts: Sequence[Measured], alone: bool) -> MethodScores:
    others = parts[1:] if alone and len(parts) > 1 else parts
    memory = [part.memory for part in parts if part.memory is not None]
    devices = [part.device_memory for part in parts if part.device_memory is not None]
    return MethodScores(
        name=name,
        scores=np.concatenate([part.scores for part in parts]),
        preparation=max(part.preparation for part in parts),
        seconds_alone=parts[0].seconds if alone else None,
        seconds_together=sum(part.seconds for part in others) / sum(len(part.scores) for part in others),
        memory=max(memory, default=None),
        device_memory=max(devices, default=None),
        resumed=all(part.resumed for part in parts),
    )

"""RapidIn's own scores: by the stored vectors alone, or with the ends of the ranking ordered by exact influence.

Shape letters: q queries · n samples · K projection dimension.
"""

# ruff: noqa: ARG002 - scorers have one signature
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreError
from rapidin.evaluation.methods.scorer import AskedQuery, StepProgress, TrainingSet
from rapidin.model import StoreCorrections, StoreModel
from rapidin.settings import MeasureChoice, Objective
from rapidin.storage import Store


class RapidinScorer:
    """Inner products of the queries' RapidGrads with the stored ones, as a search computes them.

    Args:
        store: store with the vectors.
        model: model of the store.
        where: filters by which the `TrainingSet` was selected.
        measure: meaning of the scores; None: influence if the store has a curvature, else cosine.
        objective: objective of the questions; None, or one that cosines of this store do not know: the store's
            first.
    """

    name = "rapidin"

    def __init__(
        self,
        store: Store,
        model: StoreModel,
        where: Sequence[str] = (),
        measure: MeasureChoice | None = None,
        objective: Objective | None = None,
    ) -> None:
        self._store = store
        self._model = model
        self._where = where
        self._measure = measure
        self._objective = objective
        self._corrections = StoreCorrections(store)

    def vectors(
        self, queries: Sequence[AskedQuery]
    ) -> tuple[Objective, NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute the queries' objective and vectors [q, K], and the vectors before a correction by the curvature.

        Raises:
            GradientError: a query's gradient is zero or not finite.
        """
        correction, gradient = self._corrections.of(self._measure), self._model.gradient
        objective = self._objective or gradient.default_objective
        encoded = [query.encoded for query in queries]
        if correction is None:
            objective = objective if objective in gradient.objectives else gradient.default_objective
            return objective, self._model.vectors(encoded, objective), None
        raw = self._model.vectors(encoded, objective, raw=True)
        return objective, correction.corrected(raw, objective), raw

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`.

        Raises:
            GradientError: a query's gradient is zero or not finite.
            StoreError: the store has changed since the training samples were read.
        """
        objective, vectors, _ = self.vectors(queries)
        with self._store.snapshot() as snapshot:
            ids, scores = snapshot.scores(self._model.placed(vectors, objective), self._where)
        if ids != [sample.id for sample in training.samples]:
            raise StoreError(f"{self._store.path} was changed during the evaluation: run the same command again")
        return scores


class RerankedScorer:
    """RapidIn's scores with the best and the worst samples in the order of exact influence, as with ``--rerank``.

    The N best samples share out their scores again, in the order of their exact influences, and so do the N worst.
    So each of the two groups keeps its place in the ranking, and only the order inside it changes.

    Args:
        estimates: scorer that decides the ends.
        model: model of the store.
        count: number N of samples at each end.
    """

    name = "rapidin+rerank"

    def __init__(self, estimates: RapidinScorer, model: StoreModel, count: int) -> None:
        self._estimates = estimates
        self._model = model
        self._count = count

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`.

        Raises:
            GradientError, StoreError: see `RapidinScorer.scores`.
            StoreMismatchError: a sample cannot be encoded as it was at ingest.
        """
        scores = self._estimates.scores(queries, training, on_progress)
        count = min(self._count, len(training) // 2)
        for row, query in enumerate(queries):
            order = np.argsort(-scores[row], kind="stable")
            objective, (vector,), raw = self._estimates.vectors([query])
            with self._model.exclusive(objective) as parts:
                if raw is None:
                    direction = parts.explainer.direction(query.encoded)
                else:
                    direction = parts.explainer.corrected_direction(query.encoded, objective, raw[0], vector)
                for end in (order[:count], order[len(order) - count :]):
                    encoded = [parts.encoder.encode_stored(training.samples[place]) for place in end]
                    found = parts.explainer.influences(encoded, direction)
                    # If an exact influence cannot be computed, the estimate replaces it, as in a search.
                    exact = [
                        scores[row, place] if influence is None else influence.score
                        for place, influence in zip(end, found, strict=True)
                    ]
                    scores[row, end[np.argsort(exact)[::-1]]] = scores[row, end]
            if on_progress is not None:
                on_progress(self.name, row + 1, len(queries))
        return scores

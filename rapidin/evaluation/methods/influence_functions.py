"""Influence functions (Koh and Liang 2017): ⟨H⁻¹ ∇L(query), ∇L(sample)⟩ with exact gradients.

The score says how much the query's loss would fall if the sample counted a little more in training, up to a factor
that all samples have in common. Proponents have positive scores, as with TracIn.

Shape letters: q queries · n samples.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution import (
    Curvature,
    GradientProducts,
    InverseCurvature,
    TokenSample,
    WholeGradient,
    drawn,
    in_groups,
    query_gradient,
    stacked,
    unstacked,
)
from rapidin.evaluation.methods.scorer import AskedQuery, StepProgress, TrainingSet, progress_of_step
from rapidin.model import ModelParts, StoreModel
from rapidin.settings import Objective

_OBJECTIVE: Objective = "loss"
"""The curvature is the loss's, so the gradients must be the loss's too, whatever the store differentiates."""

_VECTORS_PER_QUERY = 8
"""Number of vectors as large as the parameters that are held to solve for one query."""


class InfluenceFunction:
    """Influence by the inverse of the training loss's curvature.

    Args:
        name: name of the scorer.
        model: model of the store.
        inverse: method that multiplies by the inverse.
    """

    def __init__(self, name: str, model: StoreModel, inverse: InverseCurvature) -> None:
        self.name = name
        self._model = model
        self._inverse = inverse

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`.

        Raises:
            GradientError: a gradient is zero or not finite.
            ComputationError: the inverse cannot be applied, or memory does not suffice.
        """
        with self._model.exclusive() as parts:
            return self._scores(parts, queries, training, on_progress)

    def _scores(
        self,
        parts: ModelParts,
        queries: Sequence[AskedQuery],
        training: TrainingSet,
        on_progress: StepProgress | None,
    ) -> NDArray[np.float32]:
        products = GradientProducts(parts.engine, parts.budget, _OBJECTIVE)
        curvature = Curvature(parts.module, parts.engine.names)
        scores = np.empty((len(queries), len(training)), dtype=np.float32)
        report_step = progress_of_step(on_progress, self.name)

        def draw(numbers: random.Random, count: int) -> list[TokenSample]:
            positions = drawn(len(training), count, numbers)
            return [parts.encoder.encode_stored(training.samples[position]) for position in positions]

        def solved(asked: Sequence[AskedQuery]) -> list[WholeGradient]:
            gradients = [query_gradient(parts.engine, query.encoded, _OBJECTIVE)[0] for query in asked]
            wanted = stacked(gradients, curvature.parameters)
            return unstacked(self._inverse.solve(curvature, draw, wanted, report_step))

        together = max(1, products.together // _VECTORS_PER_QUERY)
        for group, report in in_groups(products, len(queries), len(training), report_step):
            directions: list[WholeGradient] = []
            for first in range(group.start, group.stop, together):
                directions += solved(queries[first : min(first + together, group.stop)])
            found = products.against(directions, training.encoded(), on_progress=report)
            scores[group.start : group.stop] = found.T
        return scores

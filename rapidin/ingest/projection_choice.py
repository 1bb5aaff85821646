"""The choice of a new store's projection, if the user leaves it to rapidin."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from rapidin.settings import MINIMUM_PROJECTION_DIM, ProjectionSettings, TracedParameter

logger = logging.getLogger(__name__)

_LEAST_REDUCTION = 64
"""Number of traced parameters per number of a RapidGrad from which the factored projection is taken.

Its time grows with K, the time of the shuffled one with the parameters. Measured on a CPU, the two are equally fast
at about 85 parameters per number on a model of 5.5 million, and at about 110 on one of 29.5 million
(benchmarks/RESULTS.md). The factored one is taken somewhat earlier, because its noise is a third lower.
"""

_LEAST_SHARE = 32
"""Count w of numbers per parameter tensor below which its sketch does not tell its norm (relative error √(2/w))."""


def choose_projection(
    projection: ProjectionSettings,
    parameters: Sequence[TracedParameter],
    *,
    normalise_layers: bool,
    kind_given: bool,
    dimension_given: bool,
) -> ProjectionSettings:
    """Fill in what the user left open.

    If fewer parameters are traced than the default K, as in small adapters, K is the largest power of two that fits.
    The factored projection is chosen if it is about as fast or faster and gives each layer enough numbers. Without
    layer-wise normalisation it would give equal shares to unequal layers, so then it is used only on request.

    Args:
        projection: settings with the user's values or the defaults.
        parameters: traced parameter tensors.
        normalise_layers: whether each parameter tensor's gradient is divided by its norm.
        kind_given: whether the user gave `projection.kind`.
        dimension_given: whether the user gave `projection.dimension`.
    """
    total = sum(math.prod(parameter.shape) for parameter in parameters)
    changes: dict[str, object] = {}
    dimension = projection.dimension
    if not dimension_given and total < dimension:
        dimension = max(1 << (total.bit_length() - 1), MINIMUM_PROJECTION_DIM)
        changes["dimension"] = dimension
        logger.info("%d parameters are traced, so the projection dimension is %d", total, dimension)
    if not kind_given:
        fast = total >= _LEAST_REDUCTION * dimension
        fine = dimension >= _LEAST_SHARE * len(parameters)
        changes["kind"] = "factored" if normalise_layers and fast and fine else "shuffled"
    return projection.model_copy(update=changes)

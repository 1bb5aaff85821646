"""The projection of a new store, where the user leaves it to rapidin."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from rapidin.settings import MINIMUM_PROJECTION_DIM, ProjectionSettings, TracedParameter

logger = logging.getLogger(__name__)

_LEAST_REDUCTION = 64
"""Traced parameters per number of a RapidGrad from which the factored projection is taken.

Its time grows with K, that of the shuffled one with the parameters. Measured on a CPU, the two are equally fast at
about 85 parameters per number on a model of 5.5 million, at about 110 on one of 29.5 million
(benchmarks/RESULTS.md). It is taken somewhat before that, because its noise is a third lower.
"""

_LEAST_SHARE = 32
"""Numbers per parameter tensor below which its norm cannot be had from its sketch (relative error √(2/w))."""


def choose_projection(
    projection: ProjectionSettings,
    parameters: Sequence[TracedParameter],
    *,
    normalise_layers: bool,
    kind_given: bool,
    dimension_given: bool,
) -> ProjectionSettings:
    """Fill in what the user left open.

    K is the largest power of two that fits where fewer than the default's parameters are traced, as in small
    adapters. The projection is the factored one where it is about as fast or faster and gives each layer enough
    numbers; without layer-wise normalisation it would give equal shares to unequal layers, so it is left to those
    who ask for it.

    Args:
        projection: with the user's values or the defaults.
        parameters: that are traced.
        normalise_layers: whether each parameter tensor's gradient is divided by its norm.
        kind_given: whether `projection.kind` is the user's.
        dimension_given: whether `projection.dimension` is.
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

"""The projection of a new store, if the user leaves the choice open."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from rapidin.settings import (
    MINIMUM_PROJECTION_DIM,
    GradientSettings,
    ModelSettings,
    ProjectionSettings,
    TracedParameter,
    section_of,
)

logger = logging.getLogger(__name__)


def choose_projection(
    projection: ProjectionSettings,
    parameters: Sequence[TracedParameter],
    *,
    kind_given: bool,
    dimension_given: bool,
    model: ModelSettings,
    gradient: GradientSettings,
) -> ProjectionSettings:
    """Choose the settings of the projection that the user left open.

    If fewer parameters are traced than the default K has numbers, as in small adapters, K becomes the largest
    power of two that fits. The kind is the first that suits, see `rapidin.attribution.projections`.

    Args:
        projection: settings with the user's values or the defaults.
        parameters: the traced parameters.
        kind_given: whether the user gave `projection.kind`.
        dimension_given: whether the user gave `projection.dimension`.
        model: settings of the model, for the sections that the K numbers are divided among.
        gradient: settings of the gradient.
    """
    total = sum(math.prod(parameter.shape) for parameter in parameters)
    changes: dict[str, object] = {}
    dimension, sections = projection.dimension, model.states * len(gradient.objectives)
    if not dimension_given and total < dimension // sections:
        dimension = sections * max(1 << (total.bit_length() - 1), MINIMUM_PROJECTION_DIM)
        changes["dimension"] = dimension
        logger.info("%d parameters are traced, so the projection dimension is %d", total, dimension)
    if not kind_given:
        # The import stands here, because an ingest that adds nothing needs no torch.
        from rapidin.attribution import suiting_kind

        chosen = section_of(projection.model_copy(update=changes), model, gradient)
        shapes = [parameter.shape for parameter in parameters]
        changes["kind"] = suiting_kind(chosen, shapes, gradient.normalise_layers)
    return projection.model_copy(update=changes)

"""What any way to multiply vectors with the inverse of the training loss's curvature must offer.

There are two: conjugate gradients with Gauss–Newton products (`gauss_newton`), which is the stable one, and LiSSA
(`lissa`).

Shape letters: q vectors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Annotated, Protocol

from pydantic import Field

from rapidin.attribution.curvature.curvature_products import Curvature
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.attribution.gradients import TokenSample
from rapidin.records import Progress

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A setting that must be a positive finite number.

Only settings that come as text are checked, where they are parsed; a dataclass made in Python is taken as it is.
"""

Count = Annotated[int, Field(ge=1)]
"""A setting that must be a whole number of at least 1; checked like `Positive`."""

Draw = Callable[[random.Random, int], Sequence[TokenSample]]
"""Function that draws a given number of training samples, or all samples if there are no more."""


class InverseCurvature(Protocol):
    """Multiplies with the inverse of the training loss's damped curvature."""

    def solve(
        self, curvature: Curvature, draw: Draw, wanted: Vectors, on_progress: Progress | None = None
    ) -> Vectors:
        """Multiply q vectors with the inverse.

        Args:
            curvature: curvature of the model.
            draw: function that gives random training samples.
            wanted: the q vectors b.
            on_progress: called with the number of steps that are done and the number of all steps.

        Raises:
            ComputationError: The method does not converge, or its products are not finite.
        """

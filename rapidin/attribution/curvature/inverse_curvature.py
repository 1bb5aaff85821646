"""The protocol of methods that multiply vectors with the inverse of the training loss's curvature.

There are two methods: conjugate gradients with Gauss–Newton products (`gauss_newton`), which is the stable one,
and LiSSA (`lissa`).

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
    """A method that multiplies vectors with the inverse of the training loss's damped curvature.

    Its attributes are its settings.
    """

    def solve(
        self, curvature: Curvature, draw: Draw, wanted: Vectors, on_progress: Progress | None = None
    ) -> Vectors:
        """Solve C x = b, where C is the damped curvature.

        Args:
            curvature: curvature of the model.
            draw: function that draws random training samples.
            wanted: the q vectors b.
            on_progress: function that is called with the number of steps that are done and the largest number of
                steps that the method takes.

        Returns:
            The q vectors x.

        Raises:
            ComputationError: The method does not converge, or its products are not finite; the message says which
                setting to change.
        """

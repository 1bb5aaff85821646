"""Ways to multiply with the inverse of the curvature, as influence functions need them; the stable one."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from rapidin.attribution.curvature.conjugate_gradients import conjugate_gradients
from rapidin.attribution.curvature.curvature_products import Curvature, largest_eigenvalue
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.attribution.gradients import TokenSample
from rapidin.evaluation import Tell

logger = logging.getLogger(__name__)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
"""Bounds that `registry.method_settings` checks; a dataclass made in Python is taken as it is."""

Draw = Callable[[random.Random, int], Sequence[TokenSample]]
"""Draws so many training samples, or all where there are no more."""

_POWER_ITERATIONS = 4


class InverseCurvature(Protocol):
    """Multiplies with the inverse of the training loss's damped curvature.

    Attributes:
        name: of the scorer that it makes.
    """

    @property
    def name(self) -> str:
        """See the class."""

    def solve(self, curvature: Curvature, draw: Draw, wanted: Vectors, tell: Tell | None = None) -> Vectors:
        """Multiply q vectors with the inverse.

        Raises:
            ComputationError: that does not succeed.
        """


@dataclass(frozen=True, slots=True)
class GaussNewton:
    """Conjugate gradients with Gauss–Newton products over a fixed random subset of the training samples.

    Attributes:
        damping: added to the diagonal, in the largest eigenvalue.
        samples: in the subset.
        tolerance: relative residual that suffices.
        iterations: at most.
        seed: of the subset.
    """

    damping: Positive = 0.01
    samples: Count = 16
    tolerance: Positive = 0.05
    iterations: Count = 8
    seed: int = 0

    name = "influence-cg"

    def solve(self, curvature: Curvature, draw: Draw, wanted: Vectors, tell: Tell | None = None) -> Vectors:
        """Solve (G + λ) x = b; what residual is left is logged.

        Args:
            curvature: of the model.
            draw: gives random training samples.
            wanted: b, q of them.
            tell: told of progress.

        Raises:
            ComputationError: products are not finite.
        """
        subset = draw(random.Random(self.seed), self.samples)

        def product(vectors: Vectors) -> Vectors:
            return curvature.gauss_newton(subset, vectors)

        def report(done: int) -> None:
            if tell is not None:
                tell(self.name, done, self.iterations)

        largest = largest_eigenvalue(product, wanted, _POWER_ITERATIONS, self.seed)
        solution = conjugate_gradients(
            product,
            wanted,
            self.damping * largest,
            tolerance=self.tolerance,
            iterations=self.iterations,
            on_iteration=report,
        )
        logger.info(
            "influence-cg: %d iterations over %d samples leave a relative residual of at most %.2g",
            solution.iterations,
            len(subset),
            float(solution.residuals.max()),
        )
        return solution.vectors

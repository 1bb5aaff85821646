"""Products with the inverse of the damped Gauss–Newton matrix, by conjugate gradients.

The matrix is positive semi-definite for any parameters of the model, so this method cannot diverge.

Shape letters: q vectors.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from rapidin.attribution.curvature.conjugate_gradients import conjugate_gradients
from rapidin.attribution.curvature.curvature_products import Curvature, largest_eigenvalue
from rapidin.attribution.curvature.inverse_curvature import Count, Draw, Positive
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.records import Progress

logger = logging.getLogger(__name__)

_POWER_ITERATIONS = 4


@dataclass(frozen=True, slots=True)
class GaussNewton:
    """Conjugate gradients with Gauss–Newton products over a fixed random subset of the training samples.

    Attributes:
        damping: number added to the diagonal, as a share of the largest eigenvalue.
        samples: number of samples in the subset.
        tolerance: relative residual at which the iterations end.
        iterations: maximum number of iterations.
        seed: seed of the subset.
    """

    damping: Positive = 0.01
    samples: Count = 16
    tolerance: Positive = 0.05
    iterations: Count = 8
    seed: int = 0

    def solve(
        self, curvature: Curvature, draw: Draw, wanted: Vectors, on_progress: Progress | None = None
    ) -> Vectors:
        """See `InverseCurvature.solve`; C is G + λ, where G is the subset's Gauss–Newton matrix."""
        subset = draw(random.Random(self.seed), self.samples)

        def product(vectors: Vectors) -> Vectors:
            return curvature.gauss_newton(subset, vectors)

        def report(done: int) -> None:
            if on_progress is not None:
                on_progress(done, self.iterations)

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
            "conjugate gradients: %d iterations over %d samples leave a relative residual of at most %.2g",
            solution.iterations,
            len(subset),
            float(solution.residuals.max()),
        )
        return solution.vectors

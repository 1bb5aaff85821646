"""Inverse-Hessian-vector products by LiSSA (Agarwal et al. 2017), as Koh and Liang (2017) use it.

v ← b + (1 − damping)·v − H_batch v / scale, over random batches of training samples, from v = b; after `depth`
steps v / scale estimates (H + damping·scale)⁻¹ b. Several repeats are averaged. The method converges if every
batch's eigenvalues lie between −damping·scale and 2·scale, so `scale` must be large enough; a larger scale needs
more steps. A model that is not at a minimum has negative eigenvalues, along which v stays small only for a few
steps. This is why conjugate gradients with Gauss–Newton products are the stable choice.

Shape letters: q vectors.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from rapidin.attribution.curvature import parameter_vectors as algebra
from rapidin.attribution.curvature.curvature_products import Curvature, Product, largest_eigenvalue
from rapidin.attribution.curvature.inverse_curvature import Count, Draw, Positive
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.errors import ComputationError
from rapidin.records import Progress

logger = logging.getLogger(__name__)

_BATCHES_FOR_SCALE = 4
_POWER_ITERATIONS = 4
_HEADROOM = 2.0
"""The automatic scale is the largest eigenvalue found times this, because other batches' may be larger."""
_GROWTH = 10.0
"""The run counts as diverging if the norm of v exceeds this, times the norm of b and the number of steps taken.

The quotient stays below 1 if all eigenvalues lie between 0 and `scale`.
"""


@dataclass(frozen=True, slots=True)
class Lissa:
    """LiSSA with Hessian products over random batches of the training samples.

    Attributes:
        damping: share of v that is forgotten in a step, in (0, 1).
        scale: number that products are divided by; None means twice the largest eigenvalue of some batches'
            Hessians.
        depth: number of steps.
        repeats: number of runs that are averaged.
        batch: number of training samples in a step.
        seed: seed of the batches.
    """

    damping: Annotated[float, Field(gt=0, lt=1)] = 0.01
    scale: Positive | None = None
    depth: Count = 40
    repeats: Count = 1
    batch: Count = 2
    seed: int = 0

    def solve(
        self, curvature: Curvature, draw: Draw, wanted: Vectors, on_progress: Progress | None = None
    ) -> Vectors:
        """See `InverseCurvature.solve`; C is H + damping·scale, where H is the training loss's Hessian."""
        numbers = random.Random(self.seed)

        def product() -> Product:
            samples = draw(numbers, self.batch)
            return lambda vectors: curvature.hessian(samples, vectors)

        scale = self.scale if self.scale is not None else self._automatic(product, wanted)
        total = algebra.zeros_like(wanted)
        for repeat in range(self.repeats):
            found = algebra.copied(wanted)
            for step in range(self.depth):
                curved = product()(found)
                algebra.scale(found, 1 - self.damping)
                algebra.add(found, curved, -1 / scale)
                algebra.add(found, wanted)
                self._check(found, wanted, step + 1, scale)
                if on_progress is not None:
                    on_progress(repeat * self.depth + step + 1, self.repeats * self.depth)
            algebra.add(total, found, 1 / (self.repeats * scale))
        return total

    def _automatic(self, product: Callable[[], Product], wanted: Vectors) -> float:
        """Find a scale from the largest eigenvalue of some batches' Hessians."""
        largest = 0.0
        for number in range(_BATCHES_FOR_SCALE):
            found = largest_eigenvalue(product(), wanted, _POWER_ITERATIONS, self.seed + number)
            largest = max(largest, found)
        if not 0 < largest < float("inf"):
            raise ComputationError(
                f"LiSSA: the largest eigenvalue of a batch's Hessian is {largest:.3g}, from which no scale "
                "follows; give one, or a larger --dtype where the model computes in half precision"
            )
        logger.info("LiSSA: largest eigenvalue of %d batches %.3g", _BATCHES_FOR_SCALE, largest)
        return _HEADROOM * largest

    def _check(self, found: Vectors, wanted: Vectors, step: int, scale: float) -> None:
        growth = float((algebra.norms(found) / algebra.norms(wanted).clamp_min(1e-300)).max())
        if not growth <= _GROWTH * (step + 1):  # written this way because it catches NaN, too
            raise ComputationError(
                f"LiSSA diverges at step {step} of {self.depth} with scale {scale:.3g} and damping "
                f"{self.damping:g}: try scale {4 * scale:.2g} (--setting influence-lissa.scale=…), more damping, "
                "or influence-cg, which cannot diverge"
            )

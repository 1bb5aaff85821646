"""Inverse-Hessian-vector products by LiSSA (Agarwal et al. 2017), as Koh and Liang (2017) use it.

v ← b + (1 − damping)·v − H_batch v / scale, over random batches of training samples, from v = b; after `depth`
steps v / scale estimates (H + damping·scale)⁻¹ b. Several repeats are averaged. It converges where every batch's
eigenvalues lie between −damping·scale and 2·scale, so `scale` must be large enough; the larger it is, the more
steps it takes. A model that is no minimum has negative eigenvalues, along which only few steps keep v small: that
is why conjugate gradients with Gauss–Newton products are the stable choice.

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
from rapidin.attribution.curvature.inverse import Count, Draw, Positive
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.errors import ComputationError
from rapidin.evaluation import Tell

logger = logging.getLogger(__name__)

_BATCHES_FOR_SCALE = 4
_POWER_ITERATIONS = 4
_HEADROOM = 2.0
"""Automatic scale by the largest eigenvalue found, since other batches' may be larger."""
_GROWTH = 10.0
"""Norm of v by that of b and the steps taken, from which on it diverges; it stays below 1 where eigenvalues lie
between 0 and `scale`."""


@dataclass(frozen=True, slots=True)
class Lissa:
    """How LiSSA is run.

    Attributes:
        damping: what v forgets in a step, in (0, 1).
        scale: what products are divided by; None: twice the largest eigenvalue of some batches' Hessians.
        depth: steps.
        repeats: runs that are averaged.
        batch: training samples in a step.
        seed: of the batches.
    """

    damping: Annotated[float, Field(gt=0, lt=1)] = 0.01
    scale: Positive | None = None
    depth: Count = 40
    repeats: Count = 1
    batch: Count = 2
    seed: int = 0

    name = "influence-lissa"

    def solve(self, curvature: Curvature, draw: Draw, wanted: Vectors, tell: Tell | None = None) -> Vectors:
        """Estimate (H + damping·scale)⁻¹ b.

        Args:
            curvature: of the model.
            draw: gives random training samples.
            wanted: b, q of them.
            tell: told of progress.

        Raises:
            ComputationError: it diverges; the message says which scale to try.
        """
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
                if tell is not None:
                    tell(self.name, repeat * self.depth + step + 1, self.repeats * self.depth)
            algebra.add(total, found, 1 / (self.repeats * scale))
        return total

    def _automatic(self, product: Callable[[], Product], wanted: Vectors) -> float:
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
        if not growth <= _GROWTH * (step + 1):  # so written that it catches what is no number
            raise ComputationError(
                f"LiSSA diverges at step {step} of {self.depth} with scale {scale:.3g} and damping "
                f"{self.damping:g}: try scale {4 * scale:.2g} (--setting influence-lissa.scale=…), more damping, "
                "or influence-cg, which cannot diverge"
            )

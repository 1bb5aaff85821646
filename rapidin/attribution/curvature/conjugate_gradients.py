"""Solving (A + λ) x = b for several b at once by conjugate gradients (Hestenes and Stiefel 1952).

A is known by its products with vectors only and must be positive semi-definite, as a Gauss–Newton matrix is. The
right-hand sides share each product's forward passes but not their iterations: each takes its own steps, and one
that has converged is multiplied no more.

Shape letters: q right-hand sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rapidin.attribution.curvature import parameter_vectors as algebra
from rapidin.attribution.curvature.curvature_products import Product
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.errors import ComputationError


@dataclass(frozen=True, slots=True)
class Solution:
    """What conjugate gradients came to.

    Attributes:
        vectors: x of each right-hand side.
        residuals: ‖(A + λ) x − b‖ / ‖b‖, float64 [q], as the iterations carry it along.
        iterations: products that were taken.
    """

    vectors: Vectors
    residuals: Tensor
    iterations: int


def conjugate_gradients(
    product: Product,
    wanted: Vectors,
    damping: float,
    *,
    tolerance: float,
    iterations: int,
    on_iteration: Callable[[int], None] | None = None,
) -> Solution:
    """Solve (A + λ) x = b.

    Args:
        product: with A.
        wanted: b, q of them.
        damping: λ.
        tolerance: relative residual that suffices.
        iterations: at most.
        on_iteration: told how many are done.

    Raises:
        ComputationError: A + λ is not positive definite, or its products are not finite.
    """
    found = algebra.zeros_like(wanted)
    residuals = algebra.copied(wanted)
    directions = algebra.copied(wanted)
    squares = algebra.inner(residuals, residuals)  # [q]
    beginning = torch.where(squares > 0, squares, 1.0)
    goal = tolerance**2 * beginning
    done = 0
    while done < iterations and bool((squares > goal).any()):
        active = torch.nonzero(squares > goal)[:, 0]
        along = algebra.chosen(directions, active)
        curved = product(along)
        algebra.add(curved, along, damping)
        bends = algebra.inner(along, curved)
        if not bool((bends > 0).all()):  # catches what is no number, too
            raise ComputationError(
                f"conjugate gradients: the damped curvature is not positive (iteration {done + 1}); give a larger "
                "damping (--setting influence-cg.damping=…), or another dtype to a model in half precision"
            )
        steps = squares[active] / bends
        left = algebra.chosen(residuals, active)
        algebra.add(left, curved, -steps)
        fresh = algebra.inner(left, left)
        solved = algebra.chosen(found, active)
        algebra.add(solved, along, steps)
        algebra.put(found, active, solved)
        algebra.put(residuals, active, left)
        algebra.scale(along, fresh / squares[active])
        algebra.add(along, left)
        algebra.put(directions, active, along)
        squares[active] = fresh
        done += 1
        if on_iteration is not None:
            on_iteration(done)
    return Solution(found, (squares / beginning).sqrt(), done)

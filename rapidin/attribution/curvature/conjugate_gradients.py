"""Solving (A + λ) x = b for several b at once by conjugate gradients (Hestenes and Stiefel 1952).

The matrix A is used only through its products with vectors. It must be positive semi-definite, as a Gauss–Newton
matrix is. All right-hand sides b share the forward passes of a product, but each takes its own steps, and one that
has converged takes no part in further products.

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
    """The result of conjugate gradients.

    Attributes:
        vectors: solution x for each of the q right-hand sides.
        residuals: relative residual ‖(A + λ) x − b‖ / ‖b‖ of each, float64 [q]; the iterations update it, it is
            not computed from x.
        iterations: number of products that were computed.
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
    """Solve (A + λ) x = b for q right-hand sides b.

    Args:
        product: function that multiplies vectors with A.
        wanted: the q right-hand sides b.
        damping: number λ that is added to the diagonal of A.
        tolerance: relative residual at which a right-hand side counts as solved.
        iterations: maximum number of iterations.
        on_iteration: function that is called with the number of iterations that are done.

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
        if not bool((bends > 0).all()):  # written this way because it catches NaN, too
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

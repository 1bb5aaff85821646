"""LiSSA against the inverse of the dense Hessian, and what it says where it diverges."""

import math
import random

import pytest
import torch

from rapidin.attribution.curvature import parameter_vectors as algebra
from rapidin.attribution.curvature.curvature_products import Curvature
from rapidin.attribution.curvature.lissa import Lissa
from rapidin.errors import ComputationError
from tests.attribution.curvature.test_curvature_products import (
    adapted,
    dense_hessian,
    flattened,
    identity,
    samples,
    small,
    traced,
)


def everything(numbers: random.Random, count: int):
    """Every batch is all samples, so that there is one Hessian."""
    return samples()


@pytest.mark.parametrize("make", [small, adapted])
def test_it_comes_to_the_inverse_of_the_dense_hessian(make):
    model = make()
    names = traced(model)
    dense = dense_hessian(model, names)
    eigenvalues = torch.linalg.eigvalsh(dense)
    scale = 1.5 * float(eigenvalues.abs().max())
    damping = 0.3 + max(0.0, -float(eigenvalues[0])) / scale  # the damped Hessian is positive definite
    wanted = algebra.chosen(identity(model, names), torch.tensor([0, 17, 40]))
    lissa = Lissa(damping=damping, scale=scale, depth=40, repeats=2)
    found = flattened(lissa.solve(Curvature(model, names), everything, wanted))
    expected = flattened(wanted) @ torch.linalg.inv(dense + damping * scale * torch.eye(len(dense)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_scale_is_found_by_itself_and_progress_is_told():
    model = adapted()
    names = traced(model)
    largest = float(torch.linalg.eigvalsh(dense_hessian(model, names)).abs().max())
    wanted = algebra.chosen(identity(model, names), torch.tensor([3]))
    told = []
    automatic = Lissa(depth=3, damping=0.1).solve(
        Curvature(model, names), everything, wanted, lambda done, of: told.append((done, of))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    # Power iterations end below the eigenvalue; the scale that was taken is the one that gives the same result.
    scales = [2 * largest * share for share in (0.5, 1.0)]
    ends = [
        Lissa(depth=3, damping=0.1, scale=scale).solve(Curvature(model, names), everything, wanted)
        for scale in scales
    ]
    norms = [float(algebra.norms(found)[0]) for found in (ends[1], automatic, ends[0])]
    assert norms[0] * 0.99 <= norms[1] <= norms[2] * 1.01


def test_divergence_is_an_error_that_says_which_scale_to_try():
    model = small()
    names = traced(model)
    largest = float(torch.linalg.eigvalsh(dense_hessian(model, names))[-1])
    wanted = algebra.chosen(identity(model, names), slice(0, 20))
    scale = largest / 8
    with pytest.raises(ComputationError, match=r"LiSSA diverges at step \d+ of 60 .* try scale") as caught:
        Lissa(scale=scale, depth=60).solve(Curvature(model, names), everything, wanted)
    suggested = float(str(caught.value).split("try scale ")[1].split()[0])
    assert math.isclose(suggested, 4 * scale, rel_tol=0.06)


def test_the_same_seed_draws_the_same_batches():
    model = adapted()
    names = traced(model)
    wanted = algebra.chosen(identity(model, names), torch.tensor([3]))

    def some(numbers: random.Random, count: int):
        return numbers.sample(samples(), count)

    def run(seed: int) -> torch.Tensor:
        lissa = Lissa(scale=50.0, depth=5, batch=2, seed=seed)
        return flattened(lissa.solve(Curvature(model, names), some, wanted))

    torch.testing.assert_close(run(0), run(0), rtol=0, atol=0)
    assert not torch.allclose(run(0), run(1), rtol=1e-6)

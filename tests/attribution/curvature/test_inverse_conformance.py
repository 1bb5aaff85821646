"""Every method keeps to what `InverseCurvature` promises, and so does one that forms the whole matrix."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.curvature import Curvature, GaussNewton, Lissa
from rapidin.attribution.curvature.curvature_products import largest_eigenvalue
from rapidin.attribution.curvature.inverse_curvature import Draw
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.errors import ComputationError
from rapidin.records import Progress
from tests.attribution.curvature.inverse_conformance import InverseCurvatureConformance, MakeMethod, Method
from tests.attribution.curvature.test_curvature_products import (
    dense_gauss_newton,
    dense_hessian,
    flattened,
    identity,
    samples,
)

DAMPING = 0.01


def gauss_newton(model: nn.Module, names: list[str]) -> Method:
    def damped(model: nn.Module, names: list[str]) -> Tensor:
        # The damping is a share of the largest eigenvalue as power iterations find it, not of the exact one.
        curvature, like = Curvature(model, names), identity(model, names)
        largest = largest_eigenvalue(lambda some: curvature.gauss_newton(samples(), some), like, 4, 0)
        dense = dense_gauss_newton(model, names)
        return dense + DAMPING * largest * torch.eye(len(dense), dtype=dense.dtype)

    return Method(
        GaussNewton(damping=DAMPING, tolerance=1e-6, iterations=300), damped, GaussNewton(iterations=3, samples=2)
    )


def lissa(model: nn.Module, names: list[str]) -> Method:
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(model, names))
    scale = 1.5 * float(eigenvalues.abs().max())
    damping = 0.3 + max(0.0, -float(eigenvalues[0])) / scale  # the damped Hessian is positive definite

    def damped(model: nn.Module, names: list[str]) -> Tensor:
        dense = dense_hessian(model, names)
        return dense + damping * scale * torch.eye(len(dense), dtype=dense.dtype)

    return Method(
        Lissa(damping=damping, scale=scale, depth=60), damped, Lissa(damping=damping, scale=scale, depth=3)
    )


@dataclass(frozen=True)
class WholeMatrix:
    """Forms the Gauss–Newton matrix column by column and inverts it."""

    seed: int = 0

    def solve(
        self, curvature: Curvature, draw: Draw, wanted: Vectors, on_progress: Progress | None = None
    ) -> Vectors:
        sizes = [tensor[0].numel() for tensor in wanted.values()]
        parts = torch.eye(sum(sizes), dtype=torch.float64).split(sizes, dim=1)
        every = {
            name: part.reshape(-1, *tensor.shape[1:])
            for part, (name, tensor) in zip(parts, wanted.items(), strict=True)
        }
        matrix = flattened(curvature.gauss_newton(draw(random.Random(self.seed), 2), every))
        if not torch.isfinite(matrix).all():
            raise ComputationError("the matrix is not finite; give another model")
        solved = torch.linalg.solve(matrix + DAMPING * torch.eye(len(matrix)), flattened(wanted).T).T
        if on_progress is not None:
            on_progress(1, 1)
        return {
            name: part.reshape(tensor.shape)
            for part, (name, tensor) in zip(solved.split(sizes, dim=1), wanted.items(), strict=True)
        }


def whole_matrix(model: nn.Module, names: list[str]) -> Method:
    def damped(model: nn.Module, names: list[str]) -> Tensor:
        dense = dense_gauss_newton(model, names)
        return dense + DAMPING * torch.eye(len(dense), dtype=dense.dtype)

    return Method(WholeMatrix(), damped, WholeMatrix())


class TestMethods(InverseCurvatureConformance):
    @pytest.fixture(params=[gauss_newton, lissa, whole_matrix], ids=lambda method: method.__name__)
    def make_method(self, request: pytest.FixtureRequest) -> MakeMethod:
        method: MakeMethod = request.param
        return method

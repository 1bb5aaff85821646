"""The checks that every `InverseCurvature` has to pass; see below how a new one runs them.

Shape letters: q vectors · p parameters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.curvature import Curvature, InverseCurvature, parameter_vectors as algebra
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.errors import ComputationError
from rapidin.text import EncodedSample
from tests.attribution.curvature.test_curvature_products import (
    adapted,
    flattened,
    identity,
    samples,
    small,
    traced,
)


@dataclass(frozen=True)
class Method:
    """A method, and the matrix whose inverse it is said to multiply with.

    Attributes:
        solver: the method, set so that it comes near to the inverse.
        damped: function that forms the damped curvature C of all samples, float64 [p, p], from a model and the
            names of its traced parameters.
        rough: the same method with few steps, for checks that need no good result.
    """

    solver: InverseCurvature
    damped: Callable[[nn.Module, list[str]], Tensor]
    rough: InverseCurvature


MakeMethod = Callable[[nn.Module, list[str]], Method]


def everything(numbers: random.Random, count: int) -> Sequence[EncodedSample]:
    """Take all samples, so that there is one matrix to compare with."""
    return samples()


def some(numbers: random.Random, count: int) -> Sequence[EncodedSample]:
    return numbers.sample(samples(), min(count, len(samples())))


def unit_vectors(model: nn.Module, *numbers: int) -> Vectors:
    return algebra.chosen(identity(model, traced(model)), torch.tensor(numbers))


class InverseCurvatureConformance:
    """Everything that a method promises.

    A test module derives a class from this one whose name begins with ``Test``, and overrides the fixture
    `make_method`, a function of a model and the names of its traced parameters.
    """

    @pytest.fixture
    def make_method(self) -> MakeMethod:
        raise NotImplementedError("override this fixture with what makes the method to check")

    @pytest.mark.parametrize("make_model", [small, adapted])
    def test_it_multiplies_with_the_inverse(
        self, make_method: MakeMethod, make_model: Callable[[], nn.Module]
    ) -> None:
        model = make_model()
        names = traced(model)
        method, wanted = make_method(model, names), unit_vectors(model, 0, 17, 40)
        found = flattened(method.solver.solve(Curvature(model, names), everything, wanted))
        expected = flattened(wanted) @ torch.linalg.inv(method.damped(model, names))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))

    def test_vectors_do_not_notice_each_other(self, make_method: MakeMethod) -> None:
        model = adapted()
        names = traced(model)
        solver = make_method(model, names).solver
        wanted = unit_vectors(model, 0, 17, 40)
        algebra.scale(wanted, torch.tensor([1.0, 100.0, 0.01]))
        together = flattened(solver.solve(Curvature(model, names), everything, wanted))
        for row in range(3):
            one = algebra.chosen(wanted, slice(row, row + 1))
            alone = flattened(solver.solve(Curvature(model, names), everything, one))[0]
            assert (together[row] - alone).norm() <= 1e-3 * alone.norm()

    def test_a_vector_of_zeros_stays_one(self, make_method: MakeMethod) -> None:
        model = adapted()
        names = traced(model)
        wanted = unit_vectors(model, 3, 4)
        algebra.scale(wanted, torch.tensor([0.0, 1.0]))
        found = flattened(make_method(model, names).rough.solve(Curvature(model, names), everything, wanted))
        assert not found[0].any()
        assert found[1].any()

    def test_it_changes_neither_the_vectors_nor_the_model(self, make_method: MakeMethod) -> None:
        model = adapted()
        names = traced(model)
        wanted = unit_vectors(model, 3, 4)
        before = algebra.copied(wanted)
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        required = [parameter.requires_grad for parameter in model.parameters()]
        make_method(model, names).rough.solve(Curvature(model, names), everything, wanted)
        assert all(torch.equal(wanted[name], before[name]) for name in names)
        assert [parameter.requires_grad for parameter in model.parameters()] == required
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, weights[name]), name
            assert parameter.grad is None, name

    def test_all_randomness_comes_from_its_settings(self, make_method: MakeMethod) -> None:
        model = adapted()
        names = traced(model)
        solver, wanted = make_method(model, names).rough, unit_vectors(model, 3)
        found = []
        for state in (1, 2):
            random.seed(state)
            torch.manual_seed(state)
            found.append(flattened(solver.solve(Curvature(model, names), some, wanted)))
        assert torch.equal(*found)

    def test_progress_ends_at_its_goal_at_the_latest(self, make_method: MakeMethod) -> None:
        model = adapted()
        names = traced(model)
        told: list[tuple[int, int]] = []
        make_method(model, names).rough.solve(
            Curvature(model, names),
            everything,
            unit_vectors(model, 3),
            lambda done, of: told.append((done, of)),
        )
        assert told
        assert [done for done, _ in told] == list(range(1, len(told) + 1))
        assert len({of for _, of in told}) == 1
        assert told[-1][0] <= told[-1][1]

    def test_products_that_are_not_finite_are_an_error(self, make_method: MakeMethod) -> None:
        model = adapted()
        names = traced(model)
        solver = make_method(model, names).rough
        with torch.no_grad():
            model.get_parameter(names[0])[0, 0] = torch.nan
        with pytest.raises(ComputationError):
            solver.solve(Curvature(model, names), everything, unit_vectors(model, 3))

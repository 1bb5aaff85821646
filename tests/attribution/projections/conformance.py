"""The checks that every `Projection` has to pass; see `ProjectionConformance` for how a new kind runs them.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rapidin.attribution.gradients import (
    Contribution,
    DenseGradient,
    GivenNorms,
    Normalisation,
    OuterProducts,
    OwnNorms,
    ParameterGradient,
    ScatteredRows,
    Unnormalised,
    as_matrix,
)
from rapidin.attribution.projections import Projection
from rapidin.errors import SettingError
from rapidin.settings import ProjectionSettings
from rapidin.support import WorkingMemory

K = 256
SHAPES: tuple[tuple[int, ...], ...] = ((16, 24), (12,), (40, 12), (7, 9), (3, 5, 8))
"""Matrices wide and high, a vector, a tensor of three dimensions, and sizes that are no multiple of anything."""

SIZES = [math.prod(shape) for shape in SHAPES]
SEEDS = 200


def settings(seed: int = 0, dimension: int = K) -> ProjectionSettings:
    return ProjectionSettings(dimension=dimension, seed=seed)


def random_gradients(batch: int, seed: int = 0) -> list[Tensor]:
    """Draw whole gradients, float32 [b, size] for each tensor, of very unequal norms."""
    generator = torch.Generator().manual_seed(seed)
    return [
        10.0 ** (position - 2) * torch.randn(batch, size, generator=generator)
        for position, size in enumerate(SIZES)
    ]


def dense(values: Tensor, position: int) -> ParameterGradient:
    """Wrap one tensor's gradients, [b, size]."""
    shape = SHAPES[position]
    matrices = values.reshape(len(values), *as_matrix(shape)).clone()
    return ParameterGradient(position, len(values), shape, [DenseGradient(matrices)])


def project(
    projection: Projection,
    gradients: Sequence[ParameterGradient],
    batch: int,
    normalisation: Normalisation | None = None,
    memory: WorkingMemory | None = None,
) -> Tensor:
    """Project tensors' gradients as the engine does; returns [b, K]."""
    accumulator = projection.sketches(batch, normalisation or Unnormalised(), memory or WorkingMemory())
    for gradient in gradients:
        accumulator.consume(gradient)
    return accumulator.result().clone()


def project_whole(
    projection: Projection, values: Sequence[Tensor], normalisation: Normalisation | None = None
) -> Tensor:
    """Project the gradients of all tensors, each [b, size]."""
    gradients = [dense(one, position) for position, one in enumerate(values)]
    return project(projection, gradients, len(values[0]), normalisation)


def close(found: Tensor, expected: Tensor) -> None:
    """Compare up to rounding, relative to the largest number."""
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()) + 1e-12)


def tied_contributions(batch: int) -> list[Contribution]:
    """Make three uses of the 40 × 12 tensor: an embedding, a linear layer, and a formed one."""
    generator = torch.Generator().manual_seed(5)
    index = torch.randint(-1, 40, (batch, 9), generator=generator)
    index[:, 1] = index[:, 0]  # one row is hit twice
    return [
        ScatteredRows(index, torch.randn(batch, 9, 12, generator=generator)),
        OuterProducts(
            torch.randn(batch, 6, 40, generator=generator), torch.randn(batch, 6, 12, generator=generator)
        ),
        DenseGradient(torch.randn(batch, 40, 12, generator=generator)),
    ]


TIED = SHAPES.index((40, 12))


class ProjectionConformance:
    """Everything that a kind of projection promises.

    A test module derives a class from this one whose name begins with ``Test``, and overrides the fixture `kind`.
    """

    @pytest.fixture
    def kind(self) -> type[Projection]:
        raise NotImplementedError("override this fixture with the kind of projection to check")

    @pytest.fixture
    def projection(self, kind: type[Projection]) -> Projection:
        return kind(settings(), SHAPES)

    def test_the_result_is_float32_of_k_numbers_for_each_sample(self, projection: Projection) -> None:
        assert projection.dimension == K
        for batch in (1, 3):
            result = project_whole(projection, random_gradients(batch))
            assert result.dtype == torch.float32
            assert result.shape == (batch, K)

    def test_factors_in_half_precision_are_projected_in_float32(self, projection: Projection) -> None:
        low = next(part for part in tied_contributions(2) if isinstance(part, OuterProducts))
        left, right = low.left.bfloat16(), low.right.bfloat16()
        halves = ParameterGradient(TIED, 2, SHAPES[TIED], [OuterProducts(left, right)])
        singles = ParameterGradient(TIED, 2, SHAPES[TIED], [OuterProducts(left.float(), right.float())])
        result = project(projection, [halves], 2)
        assert result.dtype == torch.float32
        close(result, project(projection, [singles], 2))

    def test_without_any_gradient_the_result_is_zero(self, projection: Projection) -> None:
        result = project(projection, [], 2)
        assert result.dtype == torch.float32
        assert torch.equal(result, torch.zeros(2, K))

    def test_it_is_linear(self, projection: Projection) -> None:
        u, v = random_gradients(3, seed=1), random_gradients(3, seed=2)
        mixed = [2.5 * one - 0.75 * other for one, other in zip(u, v, strict=True)]
        expected = 2.5 * project_whole(projection, u) - 0.75 * project_whole(projection, v)
        close(project_whole(projection, mixed), expected)

    def test_it_adds_up_over_the_tensors_in_any_order(self, projection: Projection) -> None:
        values = random_gradients(2)
        gradients = [dense(one, position) for position, one in enumerate(values)]
        whole = project(projection, gradients, 2)
        close(project(projection, gradients[::-1], 2), whole)
        close(sum((project(projection, [one], 2) for one in gradients), start=torch.zeros(2, K)), whole)

    def test_it_is_fixed_by_the_settings(self, kind: type[Projection]) -> None:
        values = random_gradients(2)
        first = project_whole(kind(settings(), SHAPES), values)
        torch.manual_seed(123)  # torch's own generator plays no part
        other = project_whole(kind(settings(seed=1), SHAPES), values)
        again = project_whole(kind(settings(), SHAPES), values)
        assert torch.equal(again, first)
        assert not torch.allclose(other, first)

    def test_scores_are_unbiased_over_the_seeds(self, kind: type[Projection]) -> None:
        """E⟨Ru, Rv⟩ = ⟨u, v⟩, for unrelated, similar and sparse gradients; five standard errors are allowed."""
        generator = torch.Generator().manual_seed(9)
        vectors = torch.randn(4, sum(SIZES), generator=generator)
        vectors[1] += vectors[0]
        vectors[2, 50:] = 0
        vectors /= vectors.norm(dim=1, keepdim=True)
        values = list(vectors.split(SIZES, dim=1))
        found = []
        for seed in range(SEEDS):
            projected = project_whole(kind(settings(seed=seed), SHAPES), values).double()
            found.append(projected @ projected.T)
        scores = torch.stack(found)
        expected = vectors.double() @ vectors.double().T
        allowed = 5 * scores.std(dim=0) / math.sqrt(SEEDS) + 1e-6
        assert allowed.max() < 0.2  # noise so large would hide a bias
        assert ((scores.mean(dim=0) - expected).abs() < allowed).all()

    def test_a_batch_is_its_single_samples(self, projection: Projection) -> None:
        """Memory is kept from batch to batch, and nothing of a larger batch stays in a smaller one."""
        values, memory = random_gradients(5), WorkingMemory()
        rows = [slice(0, 5), slice(4, 5), slice(1, 3), slice(0, 1)]
        single = torch.cat([project_whole(projection, [one[row : row + 1] for one in values]) for row in range(5)])
        for some in rows:
            gradients = [dense(one[some], position) for position, one in enumerate(values)]
            found = project(projection, gradients, some.stop - some.start, memory=memory)
            close(found, single[some])

    def test_a_tensor_changes_the_numbers_of_its_share_only(self, projection: Projection) -> None:
        for position, one in enumerate(random_gradients(20)):
            share = projection.share(position)
            assert 0 <= share.start < share.stop <= K and share.step in (None, 1)
            changed = (project(projection, [dense(one, position)], 20) != 0).any(dim=0)
            assert changed[share].any()
            assert not changed[: share.start].any() and not changed[share.stop :].any()

    def test_restoring_is_the_transposed_projection(self, projection: Projection) -> None:
        """⟨Rᵀz, v⟩ = ⟨z, Rv⟩, by tensor: each has a part of Rᵀz of its own."""
        z = torch.randn(K, generator=torch.Generator().manual_seed(3))
        for position, one in enumerate(random_gradients(4)):
            part = projection.restored(z, position, SIZES[position])
            assert part.dtype == torch.float32
            assert part.shape == (SIZES[position],)
            found = one.double() @ part.double()
            expected = project(projection, [dense(one, position)], 4).double() @ z.double()
            scale = float(one.norm(dim=1).max() * part.norm())
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)

    def test_restoring_leaves_the_vector_as_it_is(self, projection: Projection) -> None:
        z = torch.randn(K, generator=torch.Generator().manual_seed(3))
        before = z.clone()
        for position, size in enumerate(SIZES):
            projection.restored(z, position, size).zero_()
        assert torch.equal(z, before)

    def test_a_dimension_larger_than_the_gradient_is_refused(self, kind: type[Projection]) -> None:
        larger = 1 << sum(SIZES).bit_length()
        with pytest.raises(SettingError, match=f"projection dimension {larger} .*{sum(SIZES)}"):
            kind(settings(dimension=larger), SHAPES)

    @pytest.mark.parametrize("normalisation", [Unnormalised(), OwnNorms()], ids=["as it is", "by its norm"])
    def test_contributions_of_a_tied_tensor_add_up_first(
        self, projection: Projection, normalisation: Normalisation
    ) -> None:
        """Several uses of a parameter are one gradient, with one norm."""
        parts = tied_contributions(3)
        tied = ParameterGradient(TIED, 3, SHAPES[TIED], parts)
        formed = torch.zeros(3, 40, 12)
        for part in parts:
            part.add_to(formed, 0)
        whole = ParameterGradient(TIED, 3, SHAPES[TIED], [DenseGradient(formed)])
        close(project(projection, [tied], 3, normalisation), project(projection, [whole], 3, normalisation))

    @pytest.mark.parametrize("use", range(3), ids=["embedding", "linear", "formed"])
    def test_factors_are_the_gradient_that_they_form(self, projection: Projection, use: int) -> None:
        part = tied_contributions(3)[use]
        formed = torch.zeros(3, 40, 12)
        part.add_to(formed, 0)
        factors = ParameterGradient(TIED, 3, SHAPES[TIED], [part])
        whole = ParameterGradient(TIED, 3, SHAPES[TIED], [DenseGradient(formed)])
        close(project(projection, [factors], 3), project(projection, [whole], 3))

    def test_given_norms_divide_each_tensor_by_its_own(self, projection: Projection) -> None:
        values = random_gradients(3)
        norms = torch.tensor([2.0, 0.5, 8.0, 0.0, 3.0])
        divided = [one / norm if norm else 0 * one for one, norm in zip(values, norms, strict=True)]
        close(project_whole(projection, values, GivenNorms(norms)), project_whole(projection, divided))

    def test_own_norms_scale_and_take_the_size_out(self, projection: Projection) -> None:
        """A tensor's part keeps its direction, has a norm near one, whatever its gradient's was."""
        for position, one in enumerate(random_gradients(8)):
            plain = project(projection, [dense(one, position)], 8)
            normed = project(projection, [dense(one, position)], 8, OwnNorms())
            factors = normed.norm(dim=1, keepdim=True) / plain.norm(dim=1, keepdim=True)
            close(normed, plain * factors)
            assert ((normed.norm(dim=1) - 1).abs() < 0.5).all()
            torch.testing.assert_close(
                factors[:, 0] * one.norm(dim=1), torch.ones(8), rtol=0, atol=0.5
            )  # the norm may be the sketch's
            longer = project(projection, [dense(64 * one, position)], 8, OwnNorms())
            close(longer, normed)

    def test_a_zero_gradient_stays_zero_when_it_is_normalised(self, projection: Projection) -> None:
        values = [torch.cat([torch.zeros(1, size), torch.ones(1, size)]) for size in SIZES]
        result = project_whole(projection, values, OwnNorms())
        assert torch.equal(result[0], torch.zeros(K))
        assert torch.isfinite(result).all() and result[1].any()

    def test_whether_it_suits_is_a_plain_answer(self, kind: type[Projection]) -> None:
        for normalise_layers in (True, False):
            assert kind.suits(settings(), SHAPES, normalise_layers) in (True, False)

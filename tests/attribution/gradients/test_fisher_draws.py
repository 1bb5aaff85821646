"""Draws against the dense Gauss–Newton matrix, and against a slow obvious computation of one draw."""

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import FisherDraw, GradientEngine, TargetBatch
from rapidin.attribution.gradients.gradient_sources import AutogradGradients
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Dense, Tokens, random_samples, traced


def sizes(model: nn.Module, names: list[str]) -> list[int]:
    return [model.get_parameter(name).numel() for name in names]


def draws(model: nn.Module, names: list[str], samples: list[Tokens], draw: FisherDraw) -> Tensor:
    with GradientEngine(model, names) as engine:
        return engine.accumulate(samples, lambda batch: Dense(batch, sizes(model, names)), draw, 1.0)


def jacobian(model: nn.Module, names: list[str], sample: Tokens) -> tuple[Tensor, Tensor]:
    """Return the derivatives of the logits that predict the targets, [g, v, p], and the probabilities, [g, v]."""
    parameters = [model.get_parameter(name).requires_grad_() for name in names]
    logits = model(input_ids=torch.tensor([sample.ids])).logits[0]
    chosen = torch.stack([logits[place - 1] for place, target in enumerate(sample.targets) if target])
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(value, parameters, retain_graph=True)])
        for value in chosen.flatten()
    ]
    return torch.stack(rows).view(*chosen.shape, -1), chosen.detach().softmax(dim=1)


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "lora-llama"])
def test_a_draw_in_a_padded_batch_is_that_of_the_sample_alone(architecture: str) -> None:
    model = tiny.make(architecture)
    names, samples, draw = traced(model), random_samples(5), FisherDraw(seed=3, number=1)
    together = draws(model, names, samples, draw)
    for row, sample in enumerate(samples):
        alone = Dense(1, sizes(model, names))
        AutogradGradients(model, names).emit([sample], alone.consume, draw, 1.0)
        torch.testing.assert_close(together[row], alone.result()[0], rtol=1e-4, atol=1e-5)


def test_the_second_moment_of_draws_is_the_gauss_newton_matrix_of_the_summed_loss() -> None:
    model = tiny.make("llama-untied")
    names = ["model.layers.1.self_attn.v_proj.weight", "model.norm.weight"]
    sample = Tokens([5, 9, 11, 4], [False, False, True, True])
    derivatives, probabilities = jacobian(model, names, sample)
    hessian = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    expected = torch.einsum("gvp,gvw,gwq->pq", derivatives, hessian, derivatives)
    count = 4_000
    many = torch.cat([draws_of_copies(model, names, sample, number) for number in range(count)])
    found = many.T @ many / count
    # The entries' errors are independent with a standard deviation of about √(2/count) of the matrix.
    assert (found - expected).norm() / expected.norm() < 0.15
    assert abs(float(found.trace() / expected.trace()) - 1) < 0.05


def draws_of_copies(model: nn.Module, names: list[str], sample: Tokens, number: int) -> Tensor:
    taken = Dense(1, sizes(model, names))
    AutogradGradients(model, names).emit([sample], taken.consume, FisherDraw(0, number), 1.0)
    return taken.result()


def test_values_are_the_inner_products_of_logits_and_their_own_gradient() -> None:
    samples = random_samples(3)
    batch = TargetBatch.of(samples)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(batch.rows), 50, generator=generator).requires_grad_()
    values = FisherDraw(0, 0).values(logits, batch)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    torch.testing.assert_close(values, (gradient * logits).sum(dim=1))
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(len(batch.rows)), atol=1e-5, rtol=0)
    roots = logits.softmax(dim=1).sqrt()
    signs = ((gradient / roots) + roots * ((gradient / roots) * roots).sum(1, keepdim=True)).detach()
    # u/√p = z − √p(√pᵀz): what is left beside √p are signs.
    distance = (signs - signs.sign()).detach()
    along = (distance * roots).sum(dim=1, keepdim=True) * roots
    torch.testing.assert_close(distance, along.detach(), atol=1e-3, rtol=0)


def test_draws_of_other_numbers_seeds_and_samples_are_independent_of_each_other() -> None:
    samples = random_samples(2)
    batch = TargetBatch.of(samples)
    logits = torch.zeros(len(batch.rows), 1_000, requires_grad=True)

    def signs(draw: FisherDraw) -> Tensor:
        (gradient,) = torch.autograd.grad(draw.values(logits, batch).sum(), logits)
        return gradient.sign()

    first = signs(FisherDraw(0, 0))
    torch.testing.assert_close(first, signs(FisherDraw(0, 0)))
    for other in (FisherDraw(0, 1), FisherDraw(1, 0)):
        assert float((first * signs(other)).mean().abs()) < 0.02
    products = first @ first.T / 1_000
    assert float((products - torch.diag(products.diag())).abs().max()) < 0.2

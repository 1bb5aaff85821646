"""Weighted sums of the gradients of probes, against one-sample autograd."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import FisherDraw, TargetBatch
from rapidin.attribution.influence import Probe
from rapidin.attribution.influence.probe_sums import MOST_TOGETHER, ProbeSums, sums_that_fit
from rapidin.attribution.rapidgrads import RapidGradEngine, TokenBudget
from rapidin.settings import GradientSettings, ProjectionSettings
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, random_samples
from tests.attribution.rapidgrads.test_rapidgrad import parameters_of

COUNT = 7


def engine_of(model: nn.Module, token_weights: tuple[float, ...] = (64.0, 1.0)) -> RapidGradEngine:
    settings = ProjectionSettings(kind="factored", dimension=1024)
    gradient = GradientSettings(objective="loss")
    return RapidGradEngine(model, parameters_of(model), settings, gradient, token_weights=token_weights)


def probes() -> list[Probe | None]:
    found: list[Probe | None] = [
        Probe(sample, FisherDraw(0, number % 2)) for number, sample in enumerate(random_samples(COUNT))
    ]
    found.insert(3, None)
    return found


def weights(queries: int = 3) -> Tensor:
    return torch.randn(queries, COUNT + 1, generator=torch.Generator().manual_seed(5))


def gradient(model: nn.Module, sample: Tokens, draw: FisherDraw) -> Tensor:
    """The gradient of the sum of a draw's quantities, by autograd of one sample without padding, flat."""
    parameters = [model.get_parameter(name).requires_grad_() for name in traced_names(model)]
    batch = TargetBatch.of([sample])
    value = draw.values(batch.predicting(model(input_ids=batch.ids).logits), batch).sum()
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(parameter).flatten() if part is None else part.flatten()
            for parameter, part in zip(parameters, found, strict=True)
        ]
    ).float()


def traced_names(model: nn.Module) -> list[str]:
    return [parameter.name for parameter in parameters_of(model)]


def expected(model: nn.Module, of: Tensor) -> Tensor:
    rows = [
        torch.zeros(sum(model.get_parameter(name).numel() for name in traced_names(model)))
        if probe is None
        else gradient(model, probe.sample, probe.draw)
        for probe in probes()
    ]
    return of @ torch.stack(rows)


def flat(engine: RapidGradEngine, sums: list[Tensor | None], queries: int) -> Tensor:
    parts = [
        torch.zeros(queries, torch.Size(shape).numel()) if tensor is None else tensor.flatten(1)
        for tensor, shape in zip(sums, engine.shapes, strict=True)
    ]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("architecture", ["llama-tied", "llama-untied", "gpt2", "mixtral", "lora-llama"])
@pytest.mark.parametrize("tokens", [1, 50, 2048])
def test_sums_are_those_of_one_sample_autograd(architecture: str, tokens: int) -> None:
    model = tiny.make(architecture)
    of, told = weights(), []
    wanted = expected(copy.deepcopy(model), of)
    with engine_of(model) as engine:
        budget = TokenBudget.for_device(tokens, engine.device, engine.dimension)
        sums, left_out = ProbeSums(engine, budget).of(probes(), of, told.append)
        found = flat(engine, sums, len(of))
    assert left_out == [3]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert told == sorted(told)
    assert told[-1] == COUNT + 1
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("token_weights", [(64.0, 1.0), (2.0**15, 1.0)])
def test_in_half_precision_the_largest_weight_that_does_not_overflow_is_taken_for_each(
    token_weights: tuple[float, ...],
) -> None:
    low = tiny.make("llama-tied").to(torch.float16)
    wanted = expected(copy.deepcopy(low).float(), weights())
    with engine_of(low, token_weights) as engine:
        budget = TokenBudget.for_device(2048, engine.device, engine.dimension)
        sums, left_out = ProbeSums(engine, budget).of(probes(), weights())
        found = flat(engine, sums, 3)
    assert left_out == [3]
    assert torch.cosine_similarity(found, wanted, dim=1).min() > 0.999


def test_a_probe_whose_gradient_is_not_finite_is_left_out() -> None:
    model = tiny.make("llama-untied")
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = torch.nan
    asked: list[Probe | None] = [
        Probe(Tokens([5, token, 9, 11], [False, False, True, True]), FisherDraw(0, 0)) for token in (7, 50, 8)
    ]
    with engine_of(model) as engine:
        budget = TokenBudget.for_device(2048, engine.device, engine.dimension)
        sums, left_out = ProbeSums(engine, budget).of(asked, torch.ones(1, 3))
        without, _ = ProbeSums(engine, budget).of([asked[0], asked[2]], torch.ones(1, 2))
        assert left_out == [1]
        torch.testing.assert_close(flat(engine, sums, 1), flat(engine, without, 1))


@pytest.mark.parametrize(("free", "count"), [(7.0, 0), (8_000.0, 1), (17_000.0, 2), (float("inf"), MOST_TOGETHER)])
def test_as_many_sums_are_held_as_memory_has_room_for(free: float, count: int) -> None:
    assert sums_that_fit(free, 1_000) == count

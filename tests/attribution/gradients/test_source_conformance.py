"""Every source of gradients, and one made of torch's functional calls, keep to what `GradientSource` promises."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import (
    AutogradGradients,
    DenseGradient,
    HookedGradients,
    ParameterGradient,
    TargetBatch,
    TokenSample,
    as_matrix,
    weighted_objective,
)
from rapidin.attribution.gradients.capture import Consumer, NotBatchedError
from rapidin.settings import Objective
from tests import tiny
from tests.attribution.gradients.source_conformance import (
    MakeSource,
    SourceConformance,
    opened,
    with_flattened_layer,
)
from tests.attribution.gradients.test_against_autograd import random_samples, traced


class FunctionalGradients:
    """Takes a batch, and differentiates its samples one after another with respect to copies of the parameters."""

    takes_batches = True
    unsupported: Sequence[str] = ()

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.model = model
        self.names = list(names)

    def emit(
        self,
        samples: Sequence[TokenSample],
        consume: Consumer,
        objective: Objective,
        token_weight: float | None = None,
    ) -> None:
        gradients = [self.gradients(sample, objective, token_weight) for sample in samples]
        for position, name in enumerate(self.names):
            shape = tuple(self.model.get_parameter(name).shape)
            values = torch.stack([one[position].reshape(as_matrix(shape)) for one in gradients])
            consume(ParameterGradient(position, len(samples), shape, [DenseGradient(values)]))

    def gradients(self, sample: TokenSample, objective: Objective, token_weight: float | None) -> list[Tensor]:
        batch = TargetBatch.of([sample])
        weights = batch.sample_weights() if token_weight is None else torch.full(batch.rows.shape, token_weight)
        copies = {name: self.model.get_parameter(name).detach().clone().requires_grad_() for name in self.names}
        with torch.enable_grad():
            output = torch.func.functional_call(self.model, copies, kwargs={"input_ids": batch.ids})
            value = weighted_objective(batch.predicting(output.logits), batch.targets, weights, objective)
            return list(torch.autograd.grad(value, list(copies.values()), materialize_grads=True))

    def close(self) -> None:
        pass


class TestSources(SourceConformance):
    @pytest.fixture(
        params=[HookedGradients, AutogradGradients, FunctionalGradients], ids=lambda source: source.__name__
    )
    def make_source(self, request: pytest.FixtureRequest) -> MakeSource:
        source: MakeSource = request.param
        return source


def test_hooks_refuse_a_batch_whose_tokens_are_rearranged() -> None:
    model = with_flattened_layer()
    with (
        opened(HookedGradients, model, traced(model)) as source,
        pytest.raises(NotBatchedError, match=r"Linear has an input of shape \(\d+, 48\)"),
    ):
        source.emit(random_samples(2), lambda gradient: None, "loss")


def test_hooks_do_not_serve_the_parameters_of_experts() -> None:
    model = tiny.make("mixtral")
    with opened(HookedGradients, model, traced(model)) as source:
        assert any("experts" in name for name in source.unsupported)
        assert not any("self_attn" in name for name in source.unsupported)


def test_plain_autograd_takes_one_sample() -> None:
    model = tiny.make("gpt2")
    with (
        opened(AutogradGradients, model, traced(model)) as source,
        pytest.raises(ValueError, match="takes one sample at a time, not 2"),
    ):
        source.emit(random_samples(2), lambda gradient: None, "loss")

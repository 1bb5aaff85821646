"""No result depends on which batch came first."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.engine import GradientEngine
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Dense, Tokens, random_samples, traced


def gradients(model: nn.Module, batches: list[list[Tokens]]) -> list[Tensor]:
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    with GradientEngine(model, traced(model)) as engine:
        return [engine.accumulate(batch, lambda count: Dense(count, sizes), "loss") for batch in batches]


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "mixtral", "roberta", "dora-llama"])
def test_the_order_of_batches_changes_no_bit(architecture: str) -> None:
    samples = random_samples(6)
    batches = [samples[:1], samples[1:3], samples[3:]]
    expected = gradients(tiny.make(architecture), batches)
    for order in permutations(range(3)):
        found = gradients(tiny.make(architecture), [batches[number] for number in order])
        for number, gradient in zip(order, found, strict=True):
            assert torch.equal(gradient, expected[number]), order

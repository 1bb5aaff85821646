"""Layers that cut gradients off are found, in whatever state of the model they do."""

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import GradientEngine
from rapidin.errors import ModelError
from tests import tiny
from tests.attribution.gradients.test_against_autograd import traced


class Repacking(nn.Linear):
    """What bitsandbytes' 4-bit layers do on some CPUs: after a pass without gradients they have none."""

    repacked = False

    def forward(self, states: Tensor) -> Tensor:
        self.repacked = self.repacked or not states.requires_grad
        found = super().forward(states)
        return found.detach() if self.repacked else found


class Drifting(nn.Linear):
    """A layer that computes otherwise once it has computed without gradients, and still has gradients."""

    scale = 1.0

    def forward(self, states: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self.scale = 1.5
        return super().forward(states) * self.scale


def with_layers(kind: type[nn.Linear]) -> tuple[nn.Module, list[str]]:
    """A tiny model with frozen layers of a kind, and the names of the parameters that are traced beside them."""
    torch.manual_seed(0)
    model = tiny.llama(initializer_range=0.2).eval()
    for layer in model.model.layers:
        old = layer.self_attn.o_proj
        layer.self_attn.o_proj = kind(old.in_features, old.out_features, bias=False)
    model.is_quantized = True
    return model, [name for name in traced(model) if "q_proj" in name]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Repacking, r"no gradient passes through 2 layers of the model, .*o_proj' \(Repacking\): give another"),
        (Drifting, "gradients change once it has answered something"),
    ],
)
def test_a_model_that_changes_when_it_answers_is_refused(kind: type[nn.Linear], said: str) -> None:
    model, names = with_layers(kind)
    with GradientEngine(model, names) as engine, pytest.raises(ModelError, match=said):
        engine.batched  # noqa: B018 - it is decided when it is read


def test_a_layer_without_a_backward_step_is_refused_at_once() -> None:
    model, names = with_layers(Repacking)
    model.is_quantized = False
    for layer in model.model.layers:
        layer.self_attn.o_proj.repacked = True
    with GradientEngine(model, names) as engine, pytest.raises(ModelError, match="no gradient passes"):
        engine.batched  # noqa: B018


def test_a_layer_that_stays_as_it_is_is_taken() -> None:
    model, names = with_layers(nn.Linear)
    with GradientEngine(model, names) as engine:
        assert engine.batched

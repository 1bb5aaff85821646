"""A model that computes long batches in another way ends with an error, not with wrong gradients."""

import logging
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import AutogradGradients, GradientEngine, HookedGradients, TokenSample
from rapidin.attribution.gradients.capture import Consumer
from rapidin.errors import ModelError
from rapidin.settings import Objective
from tests import tiny
from tests.attribution.gradients.test_against_autograd import (
    TOLERANCE,
    Dense,
    Tokens,
    one_sample_gradient,
    relative_error,
    traced,
)

LIMIT = 40
"""Number of tokens from which `Stretched` treats a batch in another way; more than the trial has."""


class Stretched(nn.Module):
    """Rotary positions that are stretched in long batches; no configuration says so."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        factor = 2 if hidden.shape[1] > LIMIT else 1
        rotation: tuple[Tensor, Tensor] = self.inner(hidden, position_ids=position_ids * factor)
        return rotation


def stretched() -> nn.Module:
    torch.manual_seed(1)
    model = tiny.llama(initializer_range=0.3).eval()  # with small weights, attention hardly looks at positions
    model.model.rotary_emb = Stretched(model.model.rotary_emb)
    return model


def tokens(length: int, id: str) -> Tokens:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(3, tiny.VOCABULARY, (length,), generator=generator).tolist()
    return Tokens(ids, [False] + [True] * (length - 1), id)


def sizes_of(model: nn.Module) -> list[int]:
    return [parameter.numel() for parameter in model.parameters()]


def test_the_first_batch_is_compared() -> None:
    model = stretched()
    sizes = sizes_of(model)
    with GradientEngine(model, traced(model)) as engine:
        assert engine.batched
        with pytest.raises(ModelError, match=r"sample 'short': its gradient in a batch .*--tokens-per-batch 1"):
            engine.accumulate([tokens(60, "long"), tokens(9, "short")], lambda b: Dense(b, sizes), "loss")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_later_batch_that_is_longer_is_compared(dtype: torch.dtype) -> None:
    model = stretched().to(dtype)
    sizes = sizes_of(model)
    with GradientEngine(model, traced(model)) as engine:
        engine.accumulate([tokens(20, "first"), tokens(9, "second")], lambda b: Dense(b, sizes), "loss")
        with pytest.raises(ModelError, match="sample 'short'"):
            engine.accumulate([tokens(60, "long"), tokens(9, "short")], lambda b: Dense(b, sizes), "loss")
        with pytest.raises(ModelError, match="sample 'short'"):
            engine.accumulate([tokens(60, "long"), tokens(9, "short")], lambda b: Dense(b, sizes), "loss")


def test_samples_that_are_computed_alone_are_right() -> None:
    """The way out that the error names."""
    model = stretched()
    sizes = sizes_of(model)
    with GradientEngine(model, traced(model)) as engine:
        for sample in (tokens(60, "long"), tokens(9, "short")):
            found = engine.accumulate([sample], lambda b: Dense(b, sizes), "loss")
            assert relative_error(found[0], one_sample_gradient(stretched(), sample)) <= TOLERANCE


class DoubledIfLong(HookedGradients):
    """A fast source whose gradient of a long sample is twice as large as it should be."""

    def emit(
        self,
        samples: Sequence[TokenSample],
        consume: Consumer,
        objective: Objective,
        token_weight: float | None = None,
    ) -> None:
        if len(samples) == 1 and len(samples[0].ids) > LIMIT:
            token_weight = 2 / sum(samples[0].targets)
        super().emit(samples, consume, objective, token_weight)


def test_a_single_sample_that_is_wrong_is_an_error_too() -> None:
    model = tiny.make("llama-untied")
    sizes = sizes_of(model)
    with GradientEngine(model, traced(model), fast=DoubledIfLong) as engine:
        engine.accumulate([tokens(20, "one")], lambda b: Dense(b, sizes), "loss")
        with pytest.raises(ModelError, match=r"sample 'other': its gradient by hooks differs .* report it"):
            engine.accumulate([tokens(60, "other")], lambda b: Dense(b, sizes), "loss")


def test_in_low_precision_a_sample_that_disagrees_alone_is_rounding(caplog: pytest.LogCaptureFixture) -> None:
    """It is computed, with a warning, because no other way gives a better gradient."""
    model = tiny.make("llama-untied").bfloat16()
    sizes = sizes_of(model)
    with (
        GradientEngine(model, traced(model), fast=DoubledIfLong) as engine,
        caplog.at_level(logging.WARNING, "rapidin"),
    ):
        engine.accumulate([tokens(60, "other")], lambda b: Dense(b, sizes), "loss")
    (warning,) = caplog.messages
    assert "sample 'other': in low precision its gradient is largely rounding error" in warning


def test_few_batches_are_compared() -> None:
    """Only the first one, those that are much longer or have much more padding, and the eighth."""
    model = tiny.make("llama-untied")
    sizes = sizes_of(model)
    plain: list[int] = []

    class Counted(AutogradGradients):
        def emit(
            self,
            samples: Sequence[TokenSample],
            consume: Consumer,
            objective: Objective,
            token_weight: float | None = None,
        ) -> None:
            plain.append(len(samples[0].ids))
            super().emit(samples, consume, objective, token_weight)

    with GradientEngine(model, traced(model), plain=Counted) as engine:
        assert engine.batched
        plain.clear()
        for lengths in ((12, 8), (20, 11), (24, 9), (25, 7), (60, 60), (60, 6), (9, 5), (50, 3)):
            batch = [tokens(length, str(length)) for length in lengths]
            engine.accumulate(batch, lambda b: Dense(b, sizes), "loss")
    assert plain == [8, 7, 60, 3]

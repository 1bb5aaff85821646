"""The checks that every `GradientSource` has to pass; see `SourceConformance` for how a new source runs them.

Shape letters: b batch · v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import GradientEngine, GradientSource, ParameterGradient
from rapidin.attribution.gradients.capture import NotBatchedError
from rapidin.settings import Objective
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Dense, Tokens, random_samples, traced

MakeSource: TypeAlias = Callable[[nn.Module, Sequence[str]], GradientSource]

ARCHITECTURES = ["llama-tied", "gpt2", "lora-llama"]
"""A tied embedding, transposed linear layers with biases and learned positions, and adapters on a frozen base."""

TOLERANCE = 1e-5


class Flattened(nn.Module):
    """A linear layer that sees the tokens of all samples in one row, as the experts of a mixture do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.inner(hidden.flatten(0, 1))
        return output.view(*hidden.shape[:2], -1)


def with_flattened_layer() -> nn.Module:
    model = tiny.make("llama-untied")
    model.model.layers[1].mlp.down_proj = Flattened(model.model.layers[1].mlp.down_proj)
    return model


def oracle(
    model: nn.Module, names: Sequence[str], sample: Tokens, objective: Objective, token_weight: float | None = None
) -> list[Tensor]:
    """Differentiate one unpadded sample by autograd, straight from the definition; a gradient [size] by tensor."""
    parameters = [model.get_parameter(name) for name in names]
    logits = model(input_ids=torch.tensor([sample.ids])).logits[0].double()
    values = []
    for position in range(1, len(sample.ids)):
        if not sample.targets[position]:
            continue
        probabilities, own = logits[position - 1].softmax(dim=0), sample.ids[position]
        if objective == "loss":
            values.append(-probabilities[own].log())
        else:
            others = torch.cat([probabilities[:own], probabilities[own + 1 :]]).sum()
            values.append(-(probabilities[own] / others).log())
    total = torch.stack(values)
    value = total.mean() if token_weight is None else token_weight * total.sum()
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    return [
        torch.zeros(parameter.numel()) if gradient is None else gradient.flatten()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]


@contextmanager
def opened(make_source: MakeSource, model: nn.Module, names: Sequence[str]) -> Iterator[GradientSource]:
    """Make a source under the conditions that it may rely on: nothing requires a gradient."""
    model.requires_grad_(False)
    source = make_source(model, names)
    try:
        yield source
    finally:
        source.close()


def batches(source: GradientSource, samples: Sequence[Tokens]) -> list[list[Tokens]]:
    return [list(samples)] if source.takes_batches else [[sample] for sample in samples]


def emitted(
    source: GradientSource,
    sizes: list[int],
    samples: Sequence[Tokens],
    objective: Objective = "loss",
    token_weight: float | None = None,
) -> list[Tensor]:
    """Let the source emit all samples, in one batch if it can; gradients [b, size] by tensor."""
    parts = []
    for batch in batches(source, samples):
        whole = Dense(len(batch), sizes)
        source.emit(batch, whole.consume, objective, token_weight)
        parts.append(whole.result())
    return list(torch.cat(parts).split(sizes, dim=1))


def sizes_of(model: nn.Module, names: Sequence[str]) -> list[int]:
    return [model.get_parameter(name).numel() for name in names]


def assert_right(found: Sequence[Tensor], expected: Sequence[Sequence[Tensor]], names: Sequence[str]) -> None:
    """Compare gradients by tensor with those of the oracle, by sample: as a whole, and every tensor by itself."""
    by_tensor = [torch.stack(tensors) for tensors in zip(*expected, strict=True)]
    whole, right = torch.cat(list(found), dim=1), torch.cat(by_tensor, dim=1)
    assert ((whole - right).norm(dim=1) / right.norm(dim=1)).max() <= TOLERANCE
    for name, one, other in zip(names, found, by_tensor, strict=True):
        # Some gradients vanish in exact arithmetic (a key's bias shifts every attention score alike).
        floor = 1e-6 * float(right.norm())
        assert (one - other).norm() <= max(10 * TOLERANCE * float(other.norm()), floor), name


def assert_untouched(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad, name
        assert parameter.grad is None, name


def hooks(model: nn.Module) -> int:
    """Count everything that hangs on a model's modules and parameters."""
    own = sum(
        len(module._forward_hooks)
        + len(module._forward_pre_hooks)
        + len(module._backward_hooks)
        + len(module._backward_pre_hooks)
        for module in model.modules()
    )
    return own + sum(len(parameter._post_accumulate_grad_hooks or {}) for parameter in model.parameters())


class SourceConformance:
    """Everything that a source of gradients promises.

    A test module derives a class from this one whose name begins with ``Test``, and overrides the fixture
    `make_source`.
    """

    @pytest.fixture
    def make_source(self) -> MakeSource:
        raise NotImplementedError("override this fixture with what makes the source to check")

    @pytest.mark.parametrize("token_weight", [None, 0.25])
    @pytest.mark.parametrize("objective", ["loss", "log-odds"])
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_gradients_are_those_of_single_samples(
        self, make_source: MakeSource, architecture: str, objective: Objective, token_weight: float | None
    ) -> None:
        """Samples have unequal lengths and numbers of targets, so padding and weights show."""
        model, samples = tiny.make(architecture), random_samples(4)
        names = traced(model)
        expected = [oracle(model, names, sample, objective, token_weight) for sample in samples]
        with opened(make_source, model, names) as source:
            assert not source.unsupported
            found = emitted(source, sizes_of(model, names), samples, objective, token_weight)
        assert_right(found, expected, names)

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_positions_are_those_of_the_names(self, make_source: MakeSource, architecture: str) -> None:
        """Some of the parameters, in an order that is not the model's."""
        model, samples = tiny.make(architecture), random_samples(2)
        names = traced(model)[::-2]
        expected = [oracle(model, names, sample, "loss") for sample in samples]
        with opened(make_source, model, names) as source:
            found = emitted(source, sizes_of(model, names), samples)
        assert_right(found, expected, names)

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_a_call_leaves_nothing_for_the_next(self, make_source: MakeSource, architecture: str) -> None:
        model, samples = tiny.make(architecture), random_samples(3)
        names = traced(model)
        sizes = sizes_of(model, names)
        with opened(make_source, model, names) as source:
            first = emitted(source, sizes, samples)
            assert_untouched(model)
            emitted(source, sizes, samples[:1], "log-odds", 3.0)
            again = emitted(source, sizes, samples)
        assert all(torch.equal(one, other) for one, other in zip(again, first, strict=True))

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_a_consumer_that_fails_spoils_nothing(self, make_source: MakeSource, architecture: str) -> None:
        model, samples = tiny.make(architecture), random_samples(2)
        names = traced(model)
        sizes = sizes_of(model, names)

        def fail(gradient: ParameterGradient) -> None:
            raise OSError(f"no room for tensor {gradient.position}")

        with opened(make_source, model, names) as source:
            expected = emitted(source, sizes, samples)
            with pytest.raises(OSError, match="no room for tensor"):
                source.emit(samples[:1], fail, "loss")
            assert_untouched(model)
            found = emitted(source, sizes, samples)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_it_works_where_gradients_are_switched_off(self, make_source: MakeSource, architecture: str) -> None:
        model, samples = tiny.make(architecture), random_samples(1)
        names = traced(model)
        expected = [oracle(model, names, sample, "loss") for sample in samples]
        with opened(make_source, model, names) as source, torch.no_grad():
            found = emitted(source, sizes_of(model, names), samples)
            assert not torch.is_grad_enabled()
        assert_right(found, expected, names)

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_closing_leaves_the_model_as_it_was(self, make_source: MakeSource, architecture: str) -> None:
        model, samples = tiny.make(architecture), random_samples(2)
        names = traced(model)
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        before = hooks(model)
        with opened(make_source, model, names) as source:
            emitted(source, sizes_of(model, names), samples)
        assert hooks(model) == before
        assert_untouched(model)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, weights[name]), name
        source.close()  # a second time does no harm

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_an_engine_puts_back_what_required_gradients(self, make_source: MakeSource, architecture: str) -> None:
        model, samples = tiny.make(architecture), random_samples(1)
        names = traced(model)
        before = [parameter.requires_grad for parameter in model.parameters()]
        sizes = sizes_of(model, names)
        (expected,) = (torch.cat(oracle(model, names, sample, "loss")) for sample in samples)
        with GradientEngine(model, names, plain=make_source) as engine:
            found = engine.accumulate(samples, lambda batch: Dense(batch, sizes), "loss", plainly=True)
            assert_untouched(model)
        assert [parameter.requires_grad for parameter in model.parameters()] == before
        assert (found[0] - expected).norm() <= TOLERANCE * expected.norm()

    def test_rearranged_samples_are_right_or_refused(self, make_source: MakeSource) -> None:
        """`NotBatchedError` is allowed for a batch of these alone; single samples are always right."""
        model, samples = with_flattened_layer(), random_samples(3)
        names = traced(model)
        sizes = sizes_of(model, names)
        expected = [oracle(model, names, sample, "loss") for sample in samples]
        with opened(make_source, model, names) as source:
            assert not source.unsupported
            try:
                together = emitted(source, sizes, samples)
            except NotBatchedError:
                assert source.takes_batches
            else:
                assert_right(together, expected, names)
            assert_untouched(model)
            alone = [emitted(source, sizes, [sample]) for sample in samples]
        assert_right([torch.cat(parts) for parts in zip(*alone, strict=True)], expected, names)

    def test_what_it_cannot_serve_it_names(self, make_source: MakeSource) -> None:
        """A mixture of experts: either every parameter is right, or the source says that it must not be used."""
        model, samples = tiny.make("mixtral"), random_samples(1)
        names = traced(model)
        expected = [oracle(model, names, sample, "loss") for sample in samples]
        before = hooks(model)
        with opened(make_source, model, names) as source:
            if source.unsupported:
                assert set(source.unsupported) <= set(names)
                assert hooks(model) == before
            else:
                assert_right(emitted(source, sizes_of(model, names), samples), expected, names)

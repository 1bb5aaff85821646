"""Per-sample gradients of padded batches against one-sample autograd, on many architectures."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.contributions import ParameterGradient
from rapidin.attribution.gradients.engine import GradientEngine
from tests import tiny

TOLERANCE = 1e-5


@dataclass
class Tokens:
    ids: list[int]
    targets: list[bool]
    id: str = "random"


def random_samples(count: int, seed: int = 0) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for number in range(count):
        length = 5 + 7 * number % 23
        ids = torch.randint(3, tiny.VOCABULARY, (length,), generator=generator).tolist()
        ids[1] = 2  # the padding token inside a text is a token like any other
        prompt = 1 + number % (length - 1)
        samples.append(Tokens(ids, [position >= prompt for position in range(length)]))
    return samples


class Dense:
    """Accumulator that keeps every gradient whole."""

    def __init__(self, batch: int, sizes: list[int]) -> None:
        self.parts = [torch.zeros(batch, size) for size in sizes]
        self.consumed: list[int] = []

    def consume(self, gradient: ParameterGradient) -> None:
        self.consumed.append(gradient.position)
        rows = [gradient.block(row, 1) for row in range(gradient.rows)]
        self.parts[gradient.position] = torch.cat(rows, dim=1).flatten(1)
        occupied = gradient.occupied_rows()
        if occupied is not None:
            whole = torch.zeros(gradient.batch, gradient.rows, gradient.columns)
            for rows in occupied.split(3):
                whole[:, rows] = gradient.chosen_rows(rows)
            assert torch.equal(whole.flatten(1), self.parts[gradient.position])

    def result(self) -> Tensor:
        assert len(self.consumed) == len(set(self.consumed)), "a parameter was handed on twice"
        return torch.cat(self.parts, dim=1)


def traced(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def one_sample_gradient(model: nn.Module, sample: Tokens) -> Tensor:
    """The oracle: the mean cross-entropy of one unpadded sample's targets, differentiated by autograd."""
    names = traced(model)
    parameters = dict(model.named_parameters())
    ids = torch.tensor([sample.ids])
    log_probabilities = model(input_ids=ids, use_cache=False).logits.double().log_softmax(dim=-1)
    losses = [
        -log_probabilities[0, position - 1, sample.ids[position]]
        for position in range(1, len(sample.ids))
        if sample.targets[position]
    ]
    loss = torch.stack(losses).mean()
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
    return torch.cat(
        [
            torch.zeros(parameters[name].numel()) if gradient is None else gradient.flatten()
            for name, gradient in zip(names, gradients, strict=True)
        ]
    )


def batch_gradients(model: nn.Module, samples: list[Tokens], batched: bool | None = None) -> Tensor:
    names = traced(model)
    parameters = dict(model.named_parameters())
    sizes = [parameters[name].numel() for name in names]
    with GradientEngine(model, names) as engine:
        result = engine.accumulate(samples, lambda batch: Dense(batch, sizes), "loss")
        if batched is not None:
            assert engine.batched == batched
    assert [parameters[name].requires_grad for name in names] == [True] * len(names)
    return result


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_batch_equals_single_samples(architecture: str) -> None:
    model = tiny.make(architecture)
    samples = random_samples(5)
    expected = torch.stack([one_sample_gradient(model, sample) for sample in samples])
    found = batch_gradients(model, samples, batched=architecture not in tiny.ONE_BY_ONE)
    assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_parameter_tensor_is_right_by_itself(architecture: str) -> None:
    """A small tensor's mistake does not show in the norm of the whole gradient."""
    model = tiny.make(architecture)
    samples = random_samples(3)
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.stack([one_sample_gradient(model, sample) for sample in samples]).split(sizes, dim=1)
    found = batch_gradients(model, samples).split(sizes, dim=1)
    for name, one, other in zip(traced(model), found, expected, strict=True):
        # Some gradients vanish in exact arithmetic (a key's bias shifts every attention score alike).
        if other.norm() < 1e-6:
            assert one.norm() < 1e-6, name
        else:
            assert (one - other).norm() / other.norm() <= 1e-4, name


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_composition_and_order_of_a_batch_do_not_matter(architecture: str) -> None:
    model = tiny.make(architecture)
    samples = random_samples(6)
    together = batch_gradients(model, samples)
    backwards = batch_gradients(model, samples[::-1]).flip(0)
    alone = torch.cat([batch_gradients(model, [sample]) for sample in samples])
    assert relative_error(backwards, together) <= TOLERANCE
    assert relative_error(alone, together) <= TOLERANCE


def test_a_batch_as_long_as_wide_is_not_confused() -> None:
    """Five samples of five tokens: dimensions of equal size must not be mixed up."""
    for architecture in tiny.ARCHITECTURES:
        model = tiny.make(architecture)
        samples = [
            Tokens([3 + number, 7, 11, 5 * number + 4, 9], [False, False, True, True, True]) for number in range(5)
        ]
        expected = torch.stack([one_sample_gradient(model, sample) for sample in samples])
        assert relative_error(batch_gradients(model, samples), expected) <= TOLERANCE, architecture


class MixesSamples(nn.Module):
    """A layer norm's look, but its output depends on the other samples of the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(inner.weight.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * (hidden + hidden.flip(0))


def test_a_model_that_mixes_samples_is_found_out() -> None:
    model = tiny.make("llama-untied")
    model.model.norm = MixesSamples(model.model.norm)
    samples = random_samples(4)
    expected = torch.stack([one_sample_gradient(model, sample) for sample in samples])
    found = batch_gradients(model, samples, batched=False)
    assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_single_sample_first(architecture: str) -> None:
    """As a search does: nothing larger was ever computed and compared before."""
    model = tiny.make(architecture)
    (sample,) = random_samples(1, seed=3)
    assert relative_error(batch_gradients(model, [sample])[0], one_sample_gradient(model, sample)) <= TOLERANCE


def test_a_sample_that_is_not_finite_does_not_end_the_watch() -> None:
    """The first batch has no finite gradient to compare; the next must still be found out."""
    model = tiny.make("llama-untied")
    model.model.norm = MixesSamples(model.model.norm)
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = float("nan")
    spoiled = [Tokens([3, 50, 4, 5], [False, True, True, True])] * 2
    clean = [Tokens([7 if token == 50 else token for token in s.ids], s.targets) for s in random_samples(4)]
    sizes = [parameter.numel() for parameter in model.parameters()]
    with GradientEngine(model, traced(model)) as engine:
        engine.accumulate(spoiled, lambda batch: Dense(batch, sizes), "loss")
        found = engine.accumulate(clean, lambda batch: Dense(batch, sizes), "loss")
    expected = torch.stack([one_sample_gradient(model, sample) for sample in clean])
    assert relative_error(found, expected) <= TOLERANCE


class WrongNorm(nn.Module):
    """A norm whose gradient by the hooks would be wrong: its weight also acts elsewhere."""

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(inner.weight.detach().clone())
        self.share = share

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden + self.share * hidden.mean(dim=0, keepdim=True)


def test_one_wrong_tensor_among_many_is_found_out() -> None:
    model = tiny.llama(num_hidden_layers=12).eval()
    model.model.norm = WrongNorm(model.model.norm, share=0.05)
    samples = random_samples(4)
    expected = torch.stack([one_sample_gradient(model, sample) for sample in samples])
    assert relative_error(batch_gradients(model, samples, batched=False), expected) <= TOLERANCE


def test_the_slow_way_is_the_same() -> None:
    model = tiny.make("llama-tied")
    samples = random_samples(4)
    names = traced(model)
    sizes = [parameter.numel() for parameter in model.parameters()]
    with GradientEngine(model, names) as engine:
        fast = engine.accumulate(samples, lambda batch: Dense(batch, sizes), "loss")
        slow = engine.accumulate(samples, lambda batch: Dense(batch, sizes), "loss", plainly=True)
    assert relative_error(slow, fast) <= TOLERANCE


class SeesAll(MixesSamples):
    """A norm's look, but its output depends on the tokens to the right, and so on padding."""

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * (hidden + hidden.mean(dim=1, keepdim=True))


@pytest.mark.parametrize("lengths", [(60, 59), (60, 60), (2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_padding_is_found_out(dtype: torch.dtype, lengths: tuple[int, int]) -> None:
    """A batch gets no mask. One token of padding among sixty hides behind low precision's rounding; none at all
    says nothing."""
    model = tiny.make("llama-untied")
    model.model.norm = SeesAll(model.model.norm)
    model.to(dtype)
    sizes = [parameter.numel() for parameter in model.parameters()]

    def tokens(length: int) -> Tokens:
        return Tokens(torch.randint(3, tiny.VOCABULARY, (length,)).tolist(), [False] + [True] * (length - 1))

    with GradientEngine(model, traced(model)) as engine:
        engine.accumulate([tokens(length) for length in lengths], lambda batch: Dense(batch, sizes), "loss")
        engine.accumulate([tokens(60), tokens(9)], lambda batch: Dense(batch, sizes), "loss")
        assert not engine.batched

"""RapidGrads against the dense computation: one-sample gradients, normalised by hand, projected coordinate by
coordinate; and the laws that hold for every kind of projection."""

import math

import numpy as np
import pytest
import torch

from rapidin.attribution.gradients import normalisation
from rapidin.attribution.projections import ShuffledProjection, shuffled
from rapidin.attribution.rapidgrads import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.errors import ComputationError
from rapidin.settings.choices import ProjectionKind
from rapidin.settings.store_settings import GradientSettings, ProjectionSettings, TracedParameter
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, one_sample_gradient, random_samples, traced

both_kinds = pytest.mark.parametrize("kind", ["shuffled", "factored"])


def parameters_of(model: torch.nn.Module) -> list[TracedParameter]:
    parameters = dict(model.named_parameters())
    return [TracedParameter(name=name, shape=tuple(parameters[name].shape)) for name in traced(model)]


def slow_rapidgrad(
    model: torch.nn.Module, sample: Tokens, settings: ProjectionSettings, normalise_layers: bool
) -> np.ndarray:
    """The oracle, from the definition of the map's places alone."""
    parameters = parameters_of(model)
    sizes = [math.prod(parameter.shape) for parameter in parameters]
    projection = ShuffledProjection(settings, [parameter.shape for parameter in parameters])
    result = torch.zeros(settings.dimension)
    for layer, place in zip(one_sample_gradient(model, sample).split(sizes), projection.tensors, strict=True):
        norm, length = layer.norm(), place.part.chunk
        if normalise_layers and norm > 0:
            layer = layer / norm / math.sqrt(len(sizes))
        for start in range(0, len(layer), length):
            piece = layer[start : start + length]
            block, shift, signs = place.part.places(torch.tensor([place.first + start // length]))
            for element, value in enumerate(piece):
                bucket = (block[0] * length + element + shift[0]) % settings.dimension
                result[bucket] += signs[0, element] * value
    return result.numpy()


@pytest.mark.parametrize(
    ("architecture", "normalise_layers"),
    [
        ("lora-llama", True),
        ("lora-llama", False),
        ("llama-tied", True),
        pytest.param("llama-tied", False, marks=pytest.mark.slow),
        pytest.param("gpt2", True, marks=pytest.mark.slow),
        pytest.param("gpt2", False, marks=pytest.mark.slow),
    ],
)
def test_equals_the_definition(architecture: str, normalise_layers: bool) -> None:
    model = tiny.make(architecture)
    samples = random_samples(2)
    settings = ProjectionSettings(dimension=512, seed=5)
    gradient = GradientSettings(objective="loss", normalise_layers=normalise_layers)
    expected = np.stack([slow_rapidgrad(model, sample, settings, normalise_layers) for sample in samples])
    with RapidGradEngine(model, parameters_of(model), settings, gradient) as engine:
        found = engine.compute(samples)
    assert not found.problems
    np.testing.assert_allclose(found.vectors, expected, atol=2e-5 * np.abs(expected).max())


@both_kinds
def test_batches_that_grow_and_shrink_do_not_meet_in_kept_memory(kind: ProjectionKind) -> None:
    model = tiny.make("llama-untied")
    samples = random_samples(9)
    settings = ProjectionSettings(dimension=512, kind=kind)
    batches = [samples[:2], samples[2:9], samples[:1], samples[1:6]]
    with RapidGradEngine(model, parameters_of(model), settings) as engine:
        found = [engine.compute(batch).vectors for batch in batches]
    for batch, vectors in zip(batches, found, strict=True):
        with RapidGradEngine(model, parameters_of(model), settings) as engine:
            assert np.array_equal(engine.compute(batch).vectors, vectors)


@pytest.mark.parametrize("architecture", ["llama-tied", "llama-untied", "gpt2", "mixtral"])
def test_large_layers_in_blocks_give_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make(architecture)
    samples = random_samples(4)
    settings = ProjectionSettings(dimension=1024)
    with RapidGradEngine(model, parameters_of(model), settings) as engine:
        whole = engine.compute(samples).vectors
        monkeypatch.setitem(shuffled._BLOCK_ELEMENTS, "cpu", 500)
        in_blocks = engine.compute(samples).vectors
    np.testing.assert_allclose(in_blocks, whole, atol=1e-6)


def test_scores_are_mean_cosines_up_to_the_noise() -> None:
    model = tiny.make("llama-tied")
    samples = random_samples(6)
    parameters = parameters_of(model)
    sizes = [math.prod(parameter.shape) for parameter in parameters]
    layers = [one_sample_gradient(model, sample).split(sizes) for sample in samples]
    exact = np.array(
        [
            [
                np.mean([float(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(u, v, strict=True)])
                for u in layers
            ]
            for v in layers
        ]
    )
    with RapidGradEngine(model, parameters, ProjectionSettings(dimension=8192)) as engine:
        vectors = engine.compute(samples).vectors
    np.testing.assert_allclose(vectors @ vectors.T, exact, atol=5 / math.sqrt(8192))
    np.testing.assert_allclose(np.diag(exact), 1, atol=1e-5)


@both_kinds
def test_only_some_parameters_can_be_traced(kind: ProjectionKind) -> None:
    model = tiny.make("llama-untied")
    some = [parameter for parameter in parameters_of(model) if "mlp" in parameter.name]
    samples = random_samples(3)
    with RapidGradEngine(model, some, ProjectionSettings(kind=kind, dimension=256)) as engine:
        vectors = engine.compute(samples).vectors
        alone = np.concatenate([engine.compute([sample]).vectors for sample in samples])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


@both_kinds
def test_a_zero_gradient_is_reported(kind: ProjectionKind) -> None:
    """An adapter whose B matrices and A's input are zero has no gradient at all."""
    model = tiny.make("lora-llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(kind=kind, dimension=256)) as engine:
        problems = engine.compute(random_samples(2)).problems
    assert set(problems) == {0, 1}
    assert "zero" in problems[0]


@both_kinds
def test_a_gradient_that_is_not_finite_is_reported_and_does_not_touch_its_neighbours(kind: ProjectionKind) -> None:
    model = tiny.make("llama-untied")
    samples = random_samples(4)
    samples[2].ids[-1] = 50
    for number in (0, 1, 3):
        samples[number].ids = [7 if token == 50 else token for token in samples[number].ids]
    samples[2].ids[1] = 50
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = float("nan")
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(kind=kind, dimension=256)) as engine:
        batch = engine.compute(samples)
        assert set(batch.problems) == {2}
        assert "not finite" in batch.problems[2]
        alone = engine.compute([samples[3]]).vectors[0]
    np.testing.assert_allclose(batch.vectors[3], alone, atol=1e-6)


@both_kinds
def test_budget_halves_when_memory_runs_out_and_nothing_is_lost(
    kind: ProjectionKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.make("gpt2")
    samples = random_samples(12)
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(kind=kind, dimension=256)) as engine:
        expected = engine.compute(samples).vectors
        real = engine.compute
        sizes = []

        def limited(batch: list[Tokens], raw: object = None) -> object:
            sizes.append(len(batch))
            if len(batch) > 3:
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"
                )
            return real(batch, raw)

        monkeypatch.setattr(engine, "compute", limited)
        found = np.zeros_like(expected)
        seen: list[int] = []
        budget = TokenBudget.for_device(10_000, engine.device, 256)
        runner = BatchRunner(engine, budget)
        for positions, result in runner.rapidgrads(samples):
            seen += positions
            found[positions] = result.vectors
    assert budget == TokenBudget.for_device(10_000, engine.device, 256)  # the caller's stays as it was
    assert runner.budget.tokens < budget.tokens
    assert max(sizes) == 12
    assert sorted(seen) == list(range(12))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@both_kinds
def test_a_sample_too_large_for_memory_is_a_problem_of_its_own(
    kind: ProjectionKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.make("gpt2")
    samples = random_samples(6)
    longest = max(range(6), key=lambda position: len(samples[position].ids))
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(kind=kind, dimension=256)) as engine:
        expected = engine.compute(samples).vectors
        real = engine.compute

        def full(batch: list[Tokens], raw: object = None) -> object:
            if samples[longest] in batch:
                raise MemoryError
            return real(batch, raw)

        monkeypatch.setattr(engine, "compute", full)
        runner = BatchRunner(engine, TokenBudget.for_device(1000, engine.device, 256))
        seen: list[int] = []
        for positions, result in runner.rapidgrads(samples):
            seen += positions
            if result.problems:
                assert positions == [longest]
                assert "do not fit into memory even alone" in result.problems[0]
            else:
                np.testing.assert_allclose(result.vectors, expected[positions], atol=1e-6)
    assert sorted(seen) == list(range(6))
    assert runner.budget.tokens == 1000  # the others need no smaller batches


def longest_first(samples: list[Tokens]) -> list[Tokens]:
    return sorted(samples, key=lambda sample: len(sample.ids), reverse=True)


def test_a_block_is_split_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make("gpt2")
    samples = longest_first(random_samples(7))
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(dimension=256)) as engine:
        expected = engine.compute(samples).vectors
        budget = TokenBudget.for_device(10_000, engine.device, 256)
        whole = BatchRunner(engine, budget).block(samples)
        np.testing.assert_array_equal(whole.vectors, expected)
        real, sizes = engine.compute, []

        def limited(batch: list[Tokens], raw: object = None) -> object:
            if len(batch) > 3 or samples[2] in batch:
                raise MemoryError
            sizes.append(len(batch))
            return real(batch, raw)

        monkeypatch.setattr(engine, "compute", limited)
        found = BatchRunner(engine, budget).block(samples)
    assert set(found.problems) == {2}
    assert "do not fit into memory even alone" in found.problems[2]
    good = [0, 1, 3, 4, 5, 6]
    assert sum(sizes) == 6
    np.testing.assert_allclose(found.vectors[good], expected[good], atol=1e-6)


def test_samples_on_which_the_model_fails_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make("gpt2")
    samples = longest_first(random_samples(7))
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(dimension=256)) as engine:
        expected = engine.compute(samples).vectors
        real = engine.compute

        def failing(batch: list[Tokens], raw: object = None) -> object:
            if samples[1] in batch or samples[5] in batch:
                raise KeyError("no expert\nfor this token")
            return real(batch, raw)

        monkeypatch.setattr(engine, "compute", failing)
        budget = TokenBudget.for_device(10_000, engine.device, 256)
        found = BatchRunner(engine, budget).block(samples)
        message = "the model failed on it: KeyError: 'no expert\\nfor this token'"
        assert found.problems == {1: message, 5: message}
        alone = BatchRunner(engine, budget).block([samples[5]])
        assert (alone.problems, alone.vectors.shape) == ({0: message}, (1, 256))
    good = [0, 2, 3, 4, 6]
    np.testing.assert_allclose(found.vectors[good], expected[good], atol=1e-6)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ComputationError("no device")])
def test_what_no_sample_is_to_blame_for_ends_a_block(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    model = tiny.make("gpt2")
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(dimension=256)) as engine:
        budget = TokenBudget.for_device(10_000, engine.device, 256)

        def failing(batch: list[Tokens], raw: object = None) -> object:
            raise error

        monkeypatch.setattr(engine, "compute", failing)
        with pytest.raises(type(error)):
            BatchRunner(engine, budget).block(random_samples(3))
        error = RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be")
        with pytest.raises(ComputationError, match="the device failed: RuntimeError: CUDA error: device-side"):
            BatchRunner(engine, budget).block(random_samples(3))


def test_a_sparse_embedding_is_formed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not b × all tokens of the batch × hidden at once."""
    from rapidin.attribution.gradients.contributions import ParameterGradient

    model = tiny.make("llama-untied")
    monkeypatch.setitem(shuffled._BLOCK_ELEMENTS, "cpu", 2_000)
    largest = 0
    real = ParameterGradient.chosen_rows

    def watched(self: ParameterGradient, rows: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        block = real(self, rows)
        largest = max(largest, block.numel())
        return block

    monkeypatch.setattr(ParameterGradient, "chosen_rows", watched)
    with RapidGradEngine(model, parameters_of(model), ProjectionSettings(dimension=1024)) as engine:
        engine.compute(random_samples(10))
    assert 0 < largest <= 2_000


@both_kinds
def test_no_tensor_of_batch_times_parameters_is_ever_made(kind: ProjectionKind) -> None:
    """While a batch is computed, no single allocation comes near batch × parameters numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    model = tiny.llama(num_hidden_layers=12, tie_word_embeddings=True).eval()
    parameters = parameters_of(model)
    total = sum(math.prod(parameter.shape) for parameter in parameters)
    samples = random_samples(8)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes() // 4)
            return result

    with RapidGradEngine(model, parameters, ProjectionSettings(kind=kind, dimension=1024)) as engine, Watch():
        engine.compute(samples)
    assert 0 < largest < len(samples) * total / 8


@both_kinds
def test_norms_are_computed_only_where_somebody_looks_at_them(
    kind: ProjectionKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("norms")

    monkeypatch.setattr(normalisation, "squared_norms", computed)
    model = tiny.make("lora-llama")
    for normalise_layers in (True, False):
        settings = ProjectionSettings(kind=kind, dimension=512)
        gradient = GradientSettings(objective="loss", normalise_layers=normalise_layers)
        with RapidGradEngine(model, parameters_of(model), settings, gradient) as engine:
            if normalise_layers:
                with pytest.raises(NotImplementedError, match="norms"):
                    engine.compute(random_samples(2))
            else:
                assert not engine.compute(random_samples(2)).problems

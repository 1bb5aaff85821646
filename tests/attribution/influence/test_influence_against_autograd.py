"""Exact influences of samples and tokens against plain autograd, token by token, on many architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rapidin.attribution.influence import ExactInfluence, Explainer, TokenQueries, token_values
from rapidin.attribution.influence.directions import Direction
from rapidin.attribution.influence.prefixes import target_places
from rapidin.attribution.influence.token_values import BACKWARD, DIFFERENCES, FORWARD
from rapidin.attribution.rapidgrads import RapidGradEngine, TokenBudget
from rapidin.errors import ComputationError
from rapidin.settings.store_settings import GradientSettings, ProjectionSettings, TracedParameter
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, random_samples, traced
from tests.attribution.gradients.test_position_scaling import MODELS, made


def token_gradients(model: nn.Module, sample: Tokens, objective: str = "loss") -> list[Tensor]:
    """The oracle: of each target token's loss (or log-odds), by parameter tensor: [g, n] each."""
    parameters = dict(model.named_parameters())
    ids = torch.tensor([sample.ids])
    log_probabilities = model(input_ids=ids).logits.double().log_softmax(dim=-1)
    rows = []
    for place in range(1, len(sample.ids)):
        if sample.targets[place]:
            loss = -log_probabilities[0, place - 1, sample.ids[place]]
            if objective == "log-odds":
                loss = loss + torch.log1p(-torch.exp(-loss))
            found = torch.autograd.grad(
                loss, [parameters[name] for name in traced(model)], retain_graph=True, allow_unused=True
            )
            rows.append(found)
    tensors = []
    for position, name in enumerate(traced(model)):
        empty = torch.zeros(parameters[name].numel())
        tensors.append(torch.stack([empty if row[position] is None else row[position].flatten() for row in rows]))
    return [tensor.double() for tensor in tensors]


def oracle(query: list[Tensor], sample: list[Tensor], normalise_layers: bool) -> Tensor:
    """Eq. 8: [g, s], whose sums are Eq. 7, 6 and 5."""
    layers, total = len(query), torch.zeros(len(query[0]), len(sample[0]), dtype=torch.float64)
    norms = [[float(tensor.mean(dim=0).norm()) for tensor in side] for side in (query, sample)]
    for position, (of_query, of_sample) in enumerate(zip(query, sample, strict=True)):
        product = of_query @ of_sample.T / len(of_query) / len(of_sample)
        if normalise_layers:
            one, other = norms[0][position], norms[1][position]
            if one <= 1e-7 * max(norms[0]) or other <= 1e-7 * max(norms[1]):
                continue
            product /= one * other * layers
        total += product
    return total


def engine_of(
    model: nn.Module, normalise_layers: bool = True, kind: str = "shuffled", dimension: int = 128, **more: str
):
    parameters = dict(model.named_parameters())
    shapes = [TracedParameter(name=name, shape=tuple(parameters[name].shape)) for name in traced(model)]
    settings = ProjectionSettings(dimension=dimension, kind=kind)
    gradient = GradientSettings(**{"objective": "loss", "normalise_layers": normalise_layers, **more})
    return RapidGradEngine(model, shapes, settings, gradient)


def budget_of(engine: RapidGradEngine) -> TokenBudget:
    return TokenBudget.for_device(64, engine.device, engine.dimension)


def asked(
    model: nn.Module,
    engine: RapidGradEngine,
    query: Tokens,
    samples: Sequence[Tokens],
    memory: int | None = None,
) -> tuple[Explainer, Direction, list[ExactInfluence | None]]:
    """An explainer, the query's direction, and the samples' influences on the query."""
    explainer = Explainer(model, engine, budget_of(engine), memory=memory)
    direction = explainer.direction(query)
    return explainer, direction, explainer.influences(samples, direction)


@pytest.mark.parametrize("normalise_layers", [True, False])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_all_four_levels(architecture: str, normalise_layers: bool) -> None:
    check_all_four_levels(architecture, normalise_layers, "loss")


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "mixtral", "lora-llama"])
def test_all_four_levels_of_log_odds(architecture: str) -> None:
    check_all_four_levels(architecture, True, "log-odds")


def check_all_four_levels(architecture: str, normalise_layers: bool, objective: str) -> None:
    model = tiny.make(architecture)
    query, *samples = random_samples(4, seed=5)
    of_query = token_gradients(model, query, objective)
    truths = [oracle(of_query, token_gradients(model, sample, objective), normalise_layers) for sample in samples]
    with engine_of(model, normalise_layers, objective=objective) as engine:
        explainer, direction, influences = asked(model, engine, query, samples)
        parts = [explainer.token_direction(query, place, direction) for place in target_places(query)]
        for sample, influence, truth in zip(samples, influences, truths, strict=True):
            assert influence is not None
            size = float(truth.abs().sum())
            assert influence.score == pytest.approx(float(truth.sum()), abs=1e-4 * size)
            tokens = explainer.token_influences(sample, direction, influence)
            assert sum(tokens) == pytest.approx(influence.score, abs=1e-4 * size)
            np.testing.assert_allclose(tokens, truth.sum(dim=0), atol=1e-3 * float(truth.sum(dim=0).abs().max()))
        matrix = np.array(explainer.matrix(samples[-1], parts, influences[-1]))
        np.testing.assert_allclose(matrix, truths[-1], atol=1e-3 * float(truths[-1].abs().max()))
        assert explainer.way == FORWARD


@pytest.mark.parametrize("normalise_layers", [True, False])
@pytest.mark.parametrize("kind", ["shuffled", "factored"])
@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "lora-llama", "mixtral"])
def test_token_queries_add_up_to_the_query(architecture: str, kind: str, normalise_layers: bool) -> None:
    model = tiny.make(architecture)
    query = random_samples(4, seed=5)[3]
    with engine_of(model, normalise_layers, kind, 512) as engine:
        whole = engine.compute([query]).vectors[0]
        tokens = TokenQueries(engine, budget_of(engine)).vectors(query)
    assert tokens.shape == (sum(query.targets), 512)
    np.testing.assert_allclose(tokens.sum(axis=0), whole, atol=1e-5 * np.abs(whole).max() * len(tokens) ** 0.5)
    assert np.linalg.norm(tokens, axis=1).min() > 0


@pytest.mark.parametrize("kind", MODELS)
def test_tokens_add_up_if_positions_depend_on_the_length(kind: str) -> None:
    """The query is longer than the original length, and most of its prefixes are not."""
    model = made(kind)
    query, sample = random_samples(4)[3], random_samples(4)[2]
    query.targets = [place > 6 for place in range(len(query.ids))]
    with engine_of(model) as engine:
        whole = engine.compute([query]).vectors[0]
        tokens = TokenQueries(engine, budget_of(engine)).vectors(query)
        np.testing.assert_allclose(tokens.sum(axis=0), whole, atol=1e-4 * np.abs(whole).max())
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        parts = [explainer.token_direction(query, place, direction) for place in target_places(query)]
        tokens_of_sample = explainer.token_influences(sample, direction, influence)
        matrix = np.array([explainer.matrix(sample, [part], influence)[0] for part in parts])
        np.testing.assert_allclose(matrix.sum(axis=0), tokens_of_sample, atol=1e-3 * np.abs(matrix).max())
        backward = Explainer(model, engine, budget_of(engine), way=BACKWARD)
        np.testing.assert_allclose(
            backward.token_influences(sample, direction, influence),
            tokens_of_sample,
            atol=1e-3 * np.abs(tokens_of_sample).max(),
        )


@pytest.mark.parametrize("way", [DIFFERENCES, BACKWARD])
@pytest.mark.parametrize("architecture", ["llama-untied", "gpt2", "lora-llama"])
def test_the_slower_ways_agree(architecture: str, way: str) -> None:
    model = tiny.make(architecture)
    query, sample = random_samples(2, seed=5)
    with engine_of(model) as engine:
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        fast = explainer.token_influences(sample, direction, influence)
        slower = Explainer(model, engine, budget_of(engine), way=way)
        slow = slower.token_influences(sample, direction, influence)
        assert slower.way == way
    np.testing.assert_allclose(slow, fast, atol=2e-3 * np.abs(fast).max())


@pytest.mark.parametrize("normalise_layers", [True, False])
@pytest.mark.parametrize("kind", ["shuffled", "factored"])
@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "lora-llama"])
def test_without_memory_for_the_gradient_the_rapidgrad_stands_for_it(
    architecture: str, kind: str, normalise_layers: bool
) -> None:
    """Then values add up to the inner product of RapidGrads, apart from the norms, which are the exact ones."""
    model = tiny.make(architecture)
    query, *samples = random_samples(4, seed=5)
    with engine_of(model, normalise_layers, kind, 512) as engine:
        vectors = engine.compute([query, *samples]).vectors
        explainer, direction, influences = asked(model, engine, query, samples, memory=4 * 1000)
        assert not direction.exact
        for sample, vector, influence in zip(samples, vectors[1:], influences, strict=True):
            assert influence is not None
            # The factored projection divides by norms of sketches.
            tolerance = 1e-4 if kind == "shuffled" or not normalise_layers else 0.3
            spread = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vector))
            assert influence.score == pytest.approx(float(vectors[0] @ vector), abs=tolerance * spread)
            tokens = explainer.token_influences(sample, direction, influence)
            assert sum(tokens) == pytest.approx(influence.score, abs=1e-3 * np.abs(tokens).sum())
        assert explainer.way == FORWARD
        place = target_places(query)[0]
        part = explainer.token_direction(query, place, direction)
        values = explainer.matrix(samples[0], [part], influences[0])[0]
        (token,) = TokenQueries(engine, budget_of(engine)).vectors(query)[:1]
        if kind == "shuffled" or not normalise_layers:
            spread = float(np.linalg.norm(token) * np.linalg.norm(vectors[1]))
            assert sum(values) == pytest.approx(float(token @ vectors[1]), abs=1e-3 * spread)


@pytest.mark.parametrize("kind", ["shuffled", "factored"])
@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2"])
def test_restoring_is_the_transposed_projection(architecture: str, kind: str) -> None:
    model = tiny.make(architecture)
    (sample,) = random_samples(1, seed=3)
    generator = np.random.default_rng(0)
    vector = generator.standard_normal(512).astype(np.float32)
    with engine_of(model, False, kind, 512) as engine:
        projected = engine.compute([sample]).vectors[0]
        direction = Explainer(model, engine, budget_of(engine)).direction(sample)
        product = sum(
            float((engine.restored(vector, position, tensor.shape).double() * tensor.double()).sum())
            for position, tensor in enumerate(direction.tensors)
            if tensor is not None
        )
    assert product == pytest.approx(float(vector.astype(np.float64) @ projected), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", ["shuffled", "factored"])
def test_norms_of_a_query_are_computed_once_for_all_its_tokens(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (query,) = random_samples(1, seed=5)
    model = tiny.make("gpt2")
    with engine_of(model, kind=kind, dimension=512) as engine:
        explainer, direction, _ = asked(model, engine, query, [], memory=4 * 1000)
        torch.testing.assert_close(direction.norms, engine.norms(query))
        monkeypatch.setattr(engine, "norms", None)  # a call would fail
        parts = [explainer.token_direction(query, place, direction) for place in target_places(query)]
        for position, whole in enumerate(direction.tensors):
            total = torch.stack([part.tensors[position] for part in parts]).sum(dim=0)
            torch.testing.assert_close(total, whole, rtol=0, atol=1e-4 * float(whole.abs().max()))


def test_a_gradient_for_which_memory_runs_out_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make("gpt2")

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Explainer, "_whole", fail)
    with engine_of(model) as engine:
        assert not Explainer(model, engine, budget_of(engine)).direction(random_samples(1)[0]).exact


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["llama-untied", "gpt2", "lora-llama"])
def test_half_precision_is_near_single(architecture: str, dtype: torch.dtype) -> None:
    query, sample = random_samples(2, seed=5)
    found = []
    for model in (tiny.make(architecture), tiny.make(architecture).to(dtype)):
        with engine_of(model) as engine:
            explainer, direction, (influence,) = asked(model, engine, query, [sample])
            assert influence is not None
            tokens = np.array(explainer.token_influences(sample, direction, influence))
            # Not every activation function has a tangent in half precision that is finite.
            assert explainer.way in (FORWARD, BACKWARD)
            found.append((influence.score, tokens))
    (score, tokens), (low_score, low_tokens) = found
    size = np.abs(tokens).sum()
    assert low_score == pytest.approx(score, abs=0.05 * size)
    assert np.corrcoef(tokens, low_tokens)[0, 1] > 0.98


def test_small_steps_are_not_taken_where_activations_are_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An adapter in single precision on a coarse base, as PEFT makes it, without forward mode."""

    def missing(*_: object) -> None:
        raise NotImplementedError("no forward mode")

    monkeypatch.setattr(token_values, "forward_mode", missing)
    model = tiny.make("lora-llama").to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.float()
    query, sample = random_samples(2, seed=5)
    with engine_of(model) as engine:
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        monkeypatch.setattr(token_values, "central_difference", None)  # a call would fail
        tokens = explainer.token_influences(sample, direction, influence)
    assert sum(tokens) == pytest.approx(influence.score, abs=0.05 * np.abs(tokens).sum())


def test_central_differences_that_contradict_each_other_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    query, sample = random_samples(2, seed=5)
    model = tiny.make("gpt2")
    random = torch.Generator().manual_seed(1)
    with engine_of(model) as engine:
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        fast = explainer.token_influences(sample, direction, influence)

        def noise(*_: object) -> torch.Tensor:
            """Whose sum is right, and nothing else."""
            values = torch.randn(len(fast), dtype=torch.float64, generator=random)
            return values - values.mean() + influence.score

        monkeypatch.setattr(token_values, "central_difference", noise)
        slower = Explainer(model, engine, budget_of(engine), way=DIFFERENCES)
        slow = slower.token_influences(sample, direction, influence)
    np.testing.assert_allclose(slow, fast, atol=1e-3 * np.abs(fast).max())


def test_one_unlucky_sample_does_not_end_forward_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    query, *samples = random_samples(5, seed=5)
    model = tiny.make("gpt2")
    original, wrong = token_values.forward_mode, [True, False, True, True, True]

    def sometimes(*arguments):
        found = original(*arguments)
        return found + 1 if wrong.pop(0) else found

    monkeypatch.setattr(token_values, "forward_mode", sometimes)
    with engine_of(model) as engine:
        explainer, direction, influences = asked(model, engine, query, samples)
        ways = []
        for sample, influence in zip([*samples, samples[0]], [*influences, influences[0]], strict=True):
            tokens = explainer.token_influences(sample, direction, influence)
            assert sum(tokens) == pytest.approx(influence.score, abs=1e-3 * np.abs(tokens).sum())
            ways.append(explainer.way)
    assert ways == [FORWARD] * 4 + [DIFFERENCES]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_memory_that_runs_out_in_forward_mode(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Plain attention needs more than the fused one that gradients are computed with."""

    def fail(*_: object) -> None:
        raise error

    query, sample = random_samples(2, seed=5)
    model = tiny.make("llama-untied")
    with engine_of(model) as engine:
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        fast = explainer.token_influences(sample, direction, influence)
        for name in ("forward_mode", "central_difference"):
            monkeypatch.setattr(token_values, name, fail)
        slow = explainer.token_influences(sample, direction, influence)
    np.testing.assert_allclose(slow, fast, atol=1e-3 * np.abs(fast).max())


def test_a_generation_that_does_not_fit_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with engine_of(tiny.make("gpt2")) as engine:
        explainer = Explainer(tiny.make("gpt2"), engine, budget_of(engine))
        monkeypatch.setattr(engine, "accumulate", fail)
        with pytest.raises(ComputationError, match="does not fit into memory"):
            explainer.direction(random_samples(1)[0])


def test_a_token_that_the_model_is_certain_of_has_no_influence() -> None:
    query, sample = random_samples(2, seed=5)
    model = tiny.make("gpt2")
    with engine_of(model) as engine:
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        explainer.token_influences(sample, direction, influence)
        for parameter in model.parameters():
            parameter.data.zero_()  # then no gradient reaches any tensor but those that are multiplied last
        place = target_places(query)[0]
        part = explainer.token_direction(query, place, direction)
        assert np.isfinite(explainer.matrix(sample, [part, part], influence)).all()


@pytest.mark.parametrize("lacking", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_tensors_that_some_tokens_have_no_gradient_of(lacking: tuple[int, ...]) -> None:
    """As experts that a prefix does not use; along each direction by itself they are left out."""
    query, sample = random_samples(2, seed=5)
    model = tiny.make("llama-untied")
    with engine_of(model) as engine:
        explainer, direction, (influence,) = asked(model, engine, query, [sample])
        places = target_places(query)[:3]
        parts = [explainer.token_direction(query, place, direction) for place in places]
        for number in lacking:
            tensors = [None if position % 3 == 0 else one for position, one in enumerate(parts[number].tensors)]
            parts[number] = replace(parts[number], tensors=tensors)
        together = np.array(explainer.matrix(sample, parts, influence))
        alone = np.concatenate([explainer.matrix(sample, [part], influence) for part in parts])
        assert not explainer._values._apart
    np.testing.assert_allclose(together, alone, atol=1e-4 * np.abs(alone).max())


@pytest.mark.gpu
@pytest.mark.parametrize("memory", [None, 4 * 1000])
@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "lora-llama"])
def test_a_gpu_gives_what_the_cpu_gives(architecture: str, memory: int | None) -> None:
    query, *samples = random_samples(4, seed=5)
    found = []
    for device in ("cpu", "cuda"):
        model = tiny.make(architecture).to(device)
        with engine_of(model) as engine:
            explainer, direction, influences = asked(model, engine, query, samples, memory=memory)
            values = [influence.score for influence in influences if influence is not None]
            values += explainer.token_influences(samples[0], direction, influences[0])
            places = target_places(query)[:3]
            parts = [explainer.token_direction(query, place, direction) for place in places]
            values += np.array(explainer.matrix(samples[0], parts, influences[0])).ravel().tolist()
            assert explainer.way == FORWARD
            found.append((np.array(values), TokenQueries(engine, budget_of(engine)).vectors(query)))
    for cpu, gpu in zip(*found, strict=True):
        np.testing.assert_allclose(gpu, cpu, atol=1e-3 * np.abs(cpu).max())

"""Factored RapidGrads against the definition: one-sample gradients by autograd, sketched entry by entry from the
oracle's places, then normalised."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.attribution.gradients.contributions import (
    DenseGradient,
    OuterProducts,
    ParameterGradient,
    ScatteredRows,
)
from rapidin.attribution.gradients.normalisation import OwnNorms, Unnormalised
from rapidin.attribution.projections import FactoredProjection, TensorSketch
from rapidin.attribution.projections.factored import FactoredSketches
from rapidin.attribution.rapidgrads import RapidGradEngine
from rapidin.settings.store_settings import GradientSettings, ProjectionSettings
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, one_sample_gradient, random_samples
from tests.attribution.projections.test_factored_projection import slow_project, slow_shares
from tests.attribution.rapidgrads.test_rapidgrad import parameters_of

VANISHING = 1e-6
"""Norm below which a layer's gradient is rounding noise (a key's bias shifts every attention score alike)."""


def layers_of(model: nn.Module, sample: Tokens) -> list[NDArray[np.float64]]:
    """One sample's gradient, each tensor as a matrix."""
    shapes = [parameter.shape for parameter in parameters_of(model)]
    flat = one_sample_gradient(model, sample).double().split([math.prod(shape) for shape in shapes])
    return [
        layer.reshape(-1, shape[-1] if shape else 1).numpy() for layer, shape in zip(flat, shapes, strict=True)
    ]


def slow_rapidgrad(
    model: nn.Module, sample: Tokens, settings: ProjectionSettings, normalise_layers: bool = True
) -> list[tuple[slice, NDArray[np.float64] | None]]:
    """The oracle: each layer's numbers and their place; None where its gradient vanishes in exact arithmetic."""
    layers = layers_of(model, sample)
    result: list[tuple[slice, NDArray[np.float64] | None]] = []
    for (place, values), layer in zip(slow_project(settings, layers), layers, strict=True):
        if normalise_layers:
            values = values / np.linalg.norm(values) / math.sqrt(len(layers))
        result.append((place, values if np.linalg.norm(layer) > VANISHING else None))
    return result


def assert_equal_to_the_definition(
    found: NDArray[np.float32], expected: list[tuple[slice, NDArray[np.float64] | None]], tolerance: float
) -> None:
    """Layer by layer, so that a small one's mistake shows too."""
    occupied = np.zeros(len(found), dtype=bool)
    compared = 0
    for layer, (place, values) in enumerate(expected):
        occupied[place] = True
        if values is not None:
            compared += 1
            error = np.linalg.norm(found[place] - values) / np.linalg.norm(values)
            assert error <= tolerance, (layer, error)
    assert compared >= 0.8 * len(expected)
    assert not found[~occupied].any()


@pytest.mark.parametrize("normalise_layers", [True, False])
@pytest.mark.parametrize(
    "architecture", ["llama-tied", "llama-untied", "gpt2", "qwen2", "gemma", "mixtral", "lora-llama"]
)
def test_equals_the_definition(architecture: str, normalise_layers: bool) -> None:
    """Tied embeddings, Conv1D, learned positions, biases, three-dimensional parameters, adapters."""
    model = tiny.make(architecture)
    samples = random_samples(3)
    settings = ProjectionSettings(kind="factored", dimension=1024, seed=5)
    gradient = GradientSettings(objective="loss", normalise_layers=normalise_layers)
    with RapidGradEngine(model, parameters_of(model), settings, gradient) as engine:
        found = engine.compute(samples)
    assert not found.problems
    for vector, sample in zip(found.vectors, samples, strict=True):
        assert_equal_to_the_definition(vector, slow_rapidgrad(model, sample, settings, normalise_layers), 2e-5)


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "lora-llama"])
def test_bfloat16_equals_the_definition_up_to_its_rounding(architecture: str) -> None:
    model = tiny.make(architecture).bfloat16()
    samples = random_samples(3)
    settings = ProjectionSettings(kind="factored", dimension=1024, seed=5)
    with RapidGradEngine(model, parameters_of(model), settings) as engine:
        found = engine.compute(samples)
    for vector, sample in zip(found.vectors, samples, strict=True):
        expected = slow_rapidgrad(model, sample, settings)
        assert_equal_to_the_definition(vector, expected, 0.04)


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "qwen2", "gemma", "mixtral", "lora-llama"])
def test_composition_and_order_of_a_batch_do_not_matter(architecture: str) -> None:
    model = tiny.make(architecture)
    samples = random_samples(6)
    # Biases of keys have no gradient but rounding noise, which normalisation makes as large as any.
    traced = [parameter for parameter in parameters_of(model) if not parameter.name.endswith("k_proj.bias")]
    with RapidGradEngine(model, traced, ProjectionSettings(kind="factored", dimension=1024)) as engine:
        together = engine.compute(samples).vectors
        backwards = engine.compute(samples[::-1]).vectors[::-1]
        alone = np.concatenate([engine.compute([sample]).vectors for sample in samples])
    np.testing.assert_allclose(backwards, together, atol=2e-6)
    np.testing.assert_allclose(alone, together, atol=2e-6)


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "qwen2", "mixtral", "lora-llama"])
def test_a_sample_scores_one_with_itself(architecture: str) -> None:
    """Norms are the sketches' own, so this is exact and not only so on average."""
    model = tiny.make(architecture)
    with RapidGradEngine(
        model, parameters_of(model), ProjectionSettings(kind="factored", dimension=512)
    ) as engine:
        vectors = engine.compute(random_samples(4)).vectors
    np.testing.assert_allclose((vectors.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("dimension", [2048, 8192])
def test_scores_are_mean_cosines_up_to_the_noise(dimension: int) -> None:
    model = tiny.make("llama-tied")
    samples = random_samples(6)
    unit = [[layer / np.linalg.norm(layer) for layer in layers_of(model, sample)] for sample in samples]
    exact = np.array([[np.mean([(a * b).sum() for a, b in zip(u, v, strict=True)]) for u in unit] for v in unit])
    with RapidGradEngine(
        model, parameters_of(model), ProjectionSettings(kind="factored", dimension=dimension)
    ) as engine:
        vectors = engine.compute(samples).vectors
    scores = vectors @ vectors.T
    np.testing.assert_allclose(scores, exact, atol=5 / math.sqrt(dimension))
    others = ~np.eye(6, dtype=bool)
    # The bound must be one that something meaningless would not meet.
    assert np.abs(exact[others]).max() > 5 / math.sqrt(8192)


def test_copied_tensors_are_exact() -> None:
    """Norms' weights of a small model fit into their share and have no noise at all."""
    model = tiny.make("llama-untied")
    (sample,) = random_samples(1)
    settings = ProjectionSettings(kind="factored", dimension=2048)
    gradient = GradientSettings(objective="loss", normalise_layers=False)
    layers = layers_of(model, sample)
    shapes = [(layer.shape[0], layer.shape[1]) for layer in layers]
    with RapidGradEngine(model, parameters_of(model), settings, gradient) as engine:
        (vector,) = engine.compute([sample]).vectors
    copied = 0
    for share, layer in zip(slow_shares(2048, shapes), layers, strict=True):
        if share.copied:
            copied += 1
            found = vector[share.first : share.first + share.size]
            np.testing.assert_allclose(found, layer.flatten(), rtol=1e-4, atol=1e-6 * np.abs(layer).max())
    assert copied == 5  # the norms


def contributions(generator: torch.Generator) -> list[OuterProducts | ScatteredRows | DenseGradient]:
    """One of each kind, two samples of a 30 × 50 parameter."""
    return [
        OuterProducts(torch.randn(2, 7, 30, generator=generator), torch.randn(2, 7, 50, generator=generator)),
        ScatteredRows(
            torch.randint(-1, 30, (2, 7), generator=generator), torch.randn(2, 7, 50, generator=generator)
        ),
        DenseGradient(torch.randn(2, 30, 50, generator=generator)),
    ]


@pytest.mark.parametrize("normalise_layers", [True, False])
def test_contributions_of_every_kind_add_up_before_the_norm(normalise_layers: bool) -> None:
    settings = ProjectionSettings(kind="factored", dimension=128)
    parts = contributions(torch.Generator().manual_seed(0))
    whole: Tensor = torch.zeros(2, 30, 50)
    for part in parts:
        part.add_to(whole, 0)
    sketches = FactoredSketches(
        2, FactoredProjection(settings, [(30, 50), (30, 50)]), OwnNorms() if normalise_layers else Unnormalised()
    )
    sketches.consume(ParameterGradient(1, 2, (30, 50), list(parts)))
    found = sketches.result()
    for vector, matrix in zip(found, whole.double().numpy(), strict=True):
        _, (place, values) = slow_project(settings, [matrix, matrix])
        if normalise_layers:
            values = values / np.linalg.norm(values)
        np.testing.assert_allclose(vector[place], values, atol=1e-5 * np.abs(values).max())
        assert not vector[: place.start].any()


def test_layers_with_one_input_share_its_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, key and value; gate and up: four of seven layers of a block have an input of their own."""
    model = tiny.llama(intermediate_size=96).eval()
    linear = [parameter for parameter in parameters_of(model) if "proj" in parameter.name]
    wide = [parameter for parameter in linear if parameter.name.split(".")[-2] in ("q_proj", "k_proj", "v_proj")]
    made = 0
    real = TensorSketch.transformed_columns

    def watched(self: TensorSketch, right: Tensor, known: object) -> object:
        nonlocal made
        result = real(self, right, known)  # type: ignore[arg-type]
        made += result is not known
        return result

    monkeypatch.setattr(TensorSketch, "transformed_columns", watched)
    samples = random_samples(2)
    for traced, expected in ((wide, 2), (linear, 8)):
        with RapidGradEngine(model, traced, ProjectionSettings(kind="factored", dimension=512)) as engine:
            engine.compute(samples)
            made = 0
            engine.compute(samples)
        assert made == expected


def sketched(projection: FactoredProjection, gradients: Iterable[ParameterGradient]) -> Tensor:
    """RapidGrads of two samples, whose gradients reach one accumulator one after another."""
    sketches = FactoredSketches(2, projection, Unnormalised())
    for gradient in gradients:
        sketches.consume(gradient)
        del gradient
    return sketches.result()


def assert_each_is_as_alone(
    found: Tensor, projection: FactoredProjection, gradients: Iterable[ParameterGradient]
) -> None:
    """Bit for bit what an accumulator gives that has seen nothing else."""
    for gradient in gradients:
        share = projection.share(gradient.position)
        assert torch.equal(found[:, share], sketched(projection, [gradient])[:, share]), gradient.position


def test_a_layer_gets_the_numbers_of_its_own_input_whatever_came_before() -> None:
    """The transform of an input is shared by layers only if the input and the map of its columns are the same."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(30, 50), (20, 50), (30, 50), (20, 50), (80, 50), (30, 50), (30, 50)]
    projection = FactoredProjection(ProjectionSettings(kind="factored", dimension=512), shapes)
    assert all(isinstance(tensor, TensorSketch) for tensor in projection.tensors)
    memory = torch.randn(2, 14, 50, generator=generator)
    first, same_address = memory[:, :7], memory[:, ::2]
    assert (first.data_ptr(), first.shape) == (same_address.data_ptr(), same_address.shape)
    other = torch.randn(2, 7, 50, generator=generator)
    # The second layer has the input of the first, the third another one at its address, and the fifth the input of
    # the fourth with another map of its columns.
    rights = [first, first, same_address, other, other, first, first.clone()]
    gradients = []
    for position, (shape, right) in enumerate(zip(shapes, rights, strict=True)):
        left = torch.randn(2, 7, shape[0], generator=generator)
        gradients.append(ParameterGradient(position, 2, shape, [OuterProducts(left, right)]))
    for order in (gradients, gradients[::-1]):
        assert_each_is_as_alone(sketched(projection, order), projection, gradients)


def test_an_input_in_the_memory_of_one_that_is_gone_gets_its_own_transform() -> None:
    """An input that was let go of leaves its address to the next one, of the same shape and with other numbers."""
    shape, layers = (30, 50), 16
    projection = FactoredProjection(ProjectionSettings(kind="factored", dimension=1024), [shape] * layers)

    def gradient(position: int) -> ParameterGradient:
        generator = torch.Generator().manual_seed(position)
        left, right = (torch.randn(2, 7, size, generator=generator) for size in shape)
        return ParameterGradient(position, 2, shape, [OuterProducts(left, right)])

    # `map` keeps no gradient, so only the accumulator may keep the input of one when the next is made.
    found = sketched(projection, map(gradient, range(layers)))
    assert_each_is_as_alone(found, projection, map(gradient, range(layers)))


def test_a_layer_without_gradient_stays_zero() -> None:
    settings = ProjectionSettings(kind="factored", dimension=128)
    sketches = FactoredSketches(2, FactoredProjection(settings, [(30, 50), (30, 50)]), OwnNorms())
    values = torch.zeros(2, 30, 50)
    values[1] = 1e-20
    sketches.consume(ParameterGradient(0, 2, (30, 50), [DenseGradient(values)]))
    zero, tiny_one = sketches.result()
    assert not zero.any()
    assert float(tiny_one.norm()) == pytest.approx(1, abs=1e-5)

"""Models whose positions depend on the length of the input give every sample the gradient that it has alone."""

from itertools import permutations

import pytest
import torch
import transformers
from torch import nn

from rapidin.attribution.curvature import Curvature, stacked
from rapidin.attribution.gradients import GradientEngine, PositionScaling
from tests import tiny
from tests.attribution.gradients.test_against_autograd import (
    TOLERANCE,
    Dense,
    Tokens,
    batch_gradients,
    one_sample_gradient,
    random_samples,
    relative_error,
    traced,
)

ORIGINAL = 16
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 5.0, 6.0, 7.0],
    "original_max_position_embeddings": ORIGINAL,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 16.0}
LARGE = 0.3
"""Standard deviation of the weights; with smaller ones, attention hardly looks at positions."""
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


def long_rope() -> nn.Module:
    return tiny.llama(rope_parameters=dict(LONGROPE), initializer_range=LARGE).eval()


def dynamic() -> nn.Module:
    return tiny.llama(
        rope_parameters=dict(DYNAMIC), max_position_embeddings=ORIGINAL, initializer_range=LARGE
    ).eval()


def layer_types() -> nn.Module:
    """A model with a dictionary for each kind of layer, one of which depends on the length."""
    config = transformers.Gemma3TextConfig(
        **{**tiny.GROUPED, "max_position_embeddings": ORIGINAL},
        head_dim=8,
        initializer_range=LARGE,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": dict(PLAIN), "full_attention": dict(DYNAMIC)},
    )
    return transformers.Gemma3ForCausalLM(config).eval()


MODELS = {"longrope": long_rope, "dynamic": dynamic, "layer types": layer_types}


def alone(kind: str, sample: Tokens) -> torch.Tensor:
    """The oracle: one sample's gradient by a model that has seen no other input."""
    torch.manual_seed(1)
    return one_sample_gradient(MODELS[kind](), sample)


def made(kind: str) -> nn.Module:
    torch.manual_seed(1)
    return MODELS[kind]()


@pytest.mark.parametrize("kind", MODELS)
def test_every_sample_gets_the_gradient_that_it_has_alone(kind: str) -> None:
    """In any order, because dynamic scaling remembers the longest input."""
    samples = random_samples(5)
    assert {len(sample.ids) > ORIGINAL for sample in samples} == {True, False}
    expected = torch.stack([alone(kind, sample) for sample in samples])
    assert relative_error(batch_gradients(made(kind), samples, batched=True), expected) <= TOLERANCE
    for order in list(permutations(range(5)))[::40]:
        model = made(kind)
        found = torch.cat([batch_gradients(model, [samples[number]]) for number in order])
        assert relative_error(found, expected[list(order)]) <= TOLERANCE


@pytest.mark.parametrize("kind", MODELS)
def test_one_engine_computes_batch_after_batch(kind: str) -> None:
    samples = random_samples(6)
    expected = torch.stack([alone(kind, sample) for sample in samples])
    model = made(kind)
    sizes = [parameter.numel() for parameter in model.parameters()]
    with GradientEngine(model, traced(model)) as engine:
        for plainly in (False, True):
            for chosen in ([0, 1, 2], [4], [3], [2], [3, 2], [1, 5], [0]):
                batch = [samples[number] for number in chosen]
                found = engine.accumulate(batch, lambda count: Dense(count, sizes), "loss", plainly=plainly)
                assert relative_error(found, expected[chosen]) <= TOLERANCE, chosen


def test_the_positions_do_depend_on_the_length() -> None:
    """Otherwise the tests above would test nothing."""
    ids = random_samples(4)[3].ids
    for kind in MODELS:
        with torch.no_grad():
            whole = made(kind)(input_ids=torch.tensor([ids])).logits[0, :8]
            short = made(kind)(input_ids=torch.tensor([ids[:8]])).logits[0]
        assert (whole - short).abs().max() > 1e-2, kind


@pytest.mark.parametrize("kind", MODELS)
def test_closing_takes_the_hooks_away(kind: str) -> None:
    model = made(kind)
    with GradientEngine(model, traced(model)):
        pass
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["dynamic", "layer types"])
def test_products_with_the_curvature_are_those_of_single_samples(kind: str) -> None:
    model, samples = made(kind), random_samples(4)
    names = traced(model)[:3]
    parameters = {name: model.get_parameter(name) for name in names}
    vectors = stacked([[torch.randn_like(parameter) for parameter in parameters.values()]], parameters)
    with GradientEngine(model, names):
        found = Curvature(model, names, 1000).gauss_newton(samples, vectors)
    for name in names:
        total = torch.zeros_like(found[name])
        for sample in samples:
            total += Curvature(made(kind), names, 1000).gauss_newton([sample], vectors)[name] / len(samples)
        assert (found[name] - total).norm() <= 1e-4 * total.norm(), name


@pytest.mark.parametrize(
    ("config", "alike", "apart"),
    [
        (transformers.LlamaConfig(), [(1, 10**6)], []),
        (transformers.LlamaConfig(rope_parameters=LONGROPE), [(1, 16), (17, 900)], [(16, 17)]),
        (
            transformers.LlamaConfig(rope_parameters=DYNAMIC, max_position_embeddings=16),
            [(1, 16)],
            [(16, 17), (17, 18)],
        ),
        (
            transformers.Gemma3Config(
                text_config={
                    "max_position_embeddings": 16,
                    "rope_parameters": {"sliding_attention": PLAIN, "full_attention": DYNAMIC},
                }
            ),
            [(1, 16)],
            [(17, 18)],
        ),
    ],
    ids=["none", "longrope", "dynamic", "text in a larger model"],
)
def test_what_a_configuration_says(
    config: transformers.PreTrainedConfig, alike: list[tuple[int, int]], apart: list[tuple[int, int]]
) -> None:
    model = nn.Module()
    model.config = config  # type: ignore[assignment]
    scaling = PositionScaling.of(model)
    assert all(scaling.group(one) == scaling.group(other) for one, other in alike)
    assert all(scaling.group(one) != scaling.group(other) for one, other in apart)


def test_a_model_without_a_configuration_has_no_scaling() -> None:
    assert PositionScaling.of(nn.Module()) == PositionScaling((), ())


def test_an_old_name_of_the_settings_is_read() -> None:
    """Configurations of models with their own code may still have it."""

    class Config:
        rope_scaling: dict[str, object]

        def __init__(self) -> None:
            self.rope_scaling = {"type": "su"}
            self.original_max_position_embeddings = 8

        def to_dict(self) -> dict[str, object]:
            return vars(self)

    model = nn.Module()
    model.config = Config()  # type: ignore[assignment]
    assert PositionScaling.of(model) == PositionScaling((8,), ())

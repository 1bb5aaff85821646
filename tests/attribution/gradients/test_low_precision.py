"""bfloat16 and float16: sums in float32, no overflow, no underflow, against float32 with the same weights."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from rapidin.attribution.gradients import GradientEngine
from rapidin.attribution.rapidgrads import RapidGradBatch, RapidGradEngine
from rapidin.attribution.rapidgrads.rapidgrad_engine import TOKEN_WEIGHTS
from rapidin.settings.store_settings import GradientSettings, ProjectionSettings
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, random_samples
from tests.attribution.rapidgrads.test_rapidgrad import parameters_of

LEAST_COSINE = {torch.bfloat16: 0.99, torch.float16: 0.9999}


def computed(
    model: nn.Module,
    samples: list[Tokens],
    kind: str,
    normalise_layers: bool = True,
    token_weights: Sequence[float] = TOKEN_WEIGHTS,
) -> RapidGradBatch:
    settings = ProjectionSettings(kind=kind, dimension=1024)
    gradient = GradientSettings(objective="loss", normalise_layers=normalise_layers)
    with RapidGradEngine(model, parameters_of(model), settings, gradient, token_weights=token_weights) as engine:
        return engine.compute(samples)


def both(model: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The model in low precision, and in float32 with the weights that it then has."""
    low = copy.deepcopy(model).to(dtype)
    return low, copy.deepcopy(low).float()


def assert_close(low: RapidGradBatch, wide: RapidGradBatch, least_cosine: float) -> None:
    assert not low.problems
    found, expected = torch.from_numpy(low.vectors), torch.from_numpy(wide.vectors)
    assert torch.cosine_similarity(found, expected, dim=1).min() > least_cosine
    torch.testing.assert_close(found.norm(dim=1), expected.norm(dim=1), rtol=0.02, atol=0)


@pytest.mark.parametrize("normalise_layers", [True, False])
@pytest.mark.parametrize("kind", ["shuffled", "factored"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "lora-llama", "mixtral"])
def test_close_to_float32(architecture: str, dtype: torch.dtype, kind: str, normalise_layers: bool) -> None:
    low, wide = both(tiny.make(architecture), dtype)
    samples = random_samples(4)
    # A mixture may send a token to another expert for a rounding's sake.
    least = 0.9 if architecture == "mixtral" else LEAST_COSINE[dtype]
    found = computed(low, samples, kind, normalise_layers)
    assert_close(found, computed(wide, samples, kind, normalise_layers), least)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_in_float32_on_a_base_in_low_precision_is_batched(dtype: torch.dtype) -> None:
    """As PEFT loads it: the activations' rounding is not taken for a wrong gradient."""
    low, wide = both(tiny.make("lora-llama"), dtype)
    for name, parameter in low.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    samples = random_samples(4)
    settings = ProjectionSettings(kind="factored", dimension=1024)
    made: list[GradientEngine] = []

    def gradients(model: nn.Module, names: Sequence[str]) -> GradientEngine:
        made.append(GradientEngine(model, names))
        return made[-1]

    with RapidGradEngine(low, parameters_of(low), settings, gradients=gradients) as engine:
        found = engine.compute(samples)
        assert made[-1].batched
    assert_close(found, computed(wide, samples, "factored"), LEAST_COSINE[dtype])


@pytest.mark.parametrize("kind", ["shuffled", "factored"])
def test_tiny_gradients_do_not_underflow(kind: str) -> None:
    """Behind a final norm of 1e-4, most of what flows back is below what half precision can hold."""
    model = tiny.make("llama-untied")
    with torch.no_grad():
        model.model.norm.weight *= 1e-4
    low, wide = both(model, torch.float16)
    samples = random_samples(4)
    expected = computed(wide, samples, kind)
    assert_close(computed(low, samples, kind), expected, 0.995)
    about_the_mean = (1 / 64,)
    unscaled = torch.from_numpy(computed(low, samples, kind, token_weights=about_the_mean).vectors)
    assert torch.cosine_similarity(unscaled, torch.from_numpy(expected.vectors), dim=1).max() < 0.99


@pytest.mark.parametrize("normalise_layers", [True, False])
def test_large_gradients_do_not_overflow(normalise_layers: bool) -> None:
    model = tiny.make("llama-untied")
    with torch.no_grad():
        model.get_input_embeddings().weight *= 1e-4  # the first norm divides by it
    low, wide = both(model, torch.float16)
    samples = random_samples(4)
    assert_close(
        computed(low, samples, "factored", normalise_layers),
        computed(wide, samples, "factored", normalise_layers),
        0.99,
    )
    assert not computed(low, samples, "factored", normalise_layers, (65_536.0, 1.0)).problems
    problems = computed(low, samples, "factored", normalise_layers, (65_536.0,)).problems
    assert len(problems) == 4
    assert "not finite in half precision, which --dtype bfloat16" in problems[0]

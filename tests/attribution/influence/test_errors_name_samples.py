"""Errors of exact influences and of token queries name the query or sample by its id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rapidin.attribution.influence import Explainer, TokenQueries
from rapidin.attribution.influence.prefixes import target_places
from rapidin.attribution.influence.token_values import BACKWARD
from rapidin.attribution.rapidgrads import RapidGradEngine
from rapidin.errors import ComputationError, GradientError
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, random_samples
from tests.attribution.influence.test_influence_against_autograd import asked, budget_of, engine_of

SPOILED = 50
"""The token whose embedding is not a number in `spoiled_model`."""


def spoiled_model() -> torch.nn.Module:
    model = tiny.make("llama-untied")
    with torch.no_grad():
        model.get_input_embeddings().weight[SPOILED] = torch.nan
    return model


def spoiled(id: str) -> Tokens:
    return Tokens([3, SPOILED, 4, 5], [False, False, True, True], id)


def memory_runs_out(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_query_without_a_usable_gradient() -> None:
    model = spoiled_model()
    with engine_of(model) as engine:
        explainer = Explainer(model, engine, budget_of(engine))
        with pytest.raises(GradientError, match=r"^query 'asked': its gradient is zero or not finite") as found:
            explainer.direction(spoiled("asked"))
    assert found.value.id == "asked"


def test_a_query_whose_rapidgrad_stands_for_its_gradient() -> None:
    model = spoiled_model()
    with engine_of(model) as engine:
        explainer = Explainer(model, engine, budget_of(engine), memory=0)
        with pytest.raises(GradientError, match=r"^query 'asked': its gradient is not finite; ask") as found:
            explainer.direction(spoiled("asked"))
    assert found.value.id == "asked"


def test_a_token_of_a_query_without_a_usable_gradient() -> None:
    model = tiny.make("llama-untied")
    query = spoiled("asked")
    with engine_of(model) as engine:
        explainer, direction, _ = asked(model, engine, query, [])
        with torch.no_grad():
            model.get_input_embeddings().weight[SPOILED] = torch.nan
        with pytest.raises(GradientError, match=r"^query 'asked': its gradient is zero or not finite"):
            explainer.token_direction(query, target_places(query)[0], direction)


def test_a_token_query_that_is_not_finite() -> None:
    model = spoiled_model()
    with engine_of(model, normalise_layers=False) as engine:
        queries = TokenQueries(engine, budget_of(engine))
        with pytest.raises(GradientError, match=r"^query 'asked': the gradient of one of its tokens") as found:
            queries.vectors(spoiled("asked"))
    assert found.value.id == "asked"


def test_a_token_query_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    (query,) = random_samples(1)
    query.id = "asked"
    with engine_of(tiny.make("llama-untied")) as engine:
        monkeypatch.setattr(engine, "compute_with_norms", memory_runs_out)
        queries = TokenQueries(engine, budget_of(engine))
        message = rf"^query 'asked': its {len(query.ids)} tokens do not fit into memory even alone"
        with pytest.raises(GradientError, match=message) as found:
            queries.vectors(query)
    assert found.value.id == "asked"


def test_a_sample_whose_tokens_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    query, sample = random_samples(2)
    sample.id = "stored"
    model = tiny.make("llama-untied")
    with engine_of(model) as engine:
        _, direction, (influence,) = asked(model, engine, query, [sample])
        assert influence is not None
        explainer = Explainer(model, engine, budget_of(engine), way=BACKWARD)
        monkeypatch.setattr(engine, "accumulate", memory_runs_out)
        with pytest.raises(ComputationError, match=re.escape("sample 'stored': ") + r"\d+ tokens do not fit"):
            explainer.token_influences(sample, direction, influence)


def test_a_budget_that_fitted_is_remembered() -> None:
    """Memory runs out once, not in every call."""

    class Small:
        """An engine whose memory has room for two prefixes."""

        def __init__(self, engine: RapidGradEngine) -> None:
            self.engine = engine
            self.failed = 0

        def __getattr__(self, name: str) -> object:
            return getattr(self.engine, name)

        def compute_with_norms(self, samples: Sequence[Tokens], *more: Any) -> object:
            if len(samples) > 2:
                self.failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.engine.compute_with_norms(samples, *more)

    query = random_samples(4)[3]
    with engine_of(tiny.make("llama-untied")) as engine:
        small = Small(engine)
        queries = TokenQueries(small, budget_of(engine))  # type: ignore[arg-type]
        queries.vectors(query)
        failed = small.failed
        assert failed > 0
        queries.vectors(query)
        assert small.failed == failed

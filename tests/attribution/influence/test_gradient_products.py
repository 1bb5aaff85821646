"""Products of whole gradients, and TracIn, against plain autograd of one sample after another."""

from __future__ import annotations

from itertools import compress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rapidin
from rapidin.attribution.influence.gradient_products import GradientProducts, query_gradient
from rapidin.attribution.rapidgrads import TokenBudget
from rapidin.errors import GradientError, ModelError
from rapidin.evaluation.methods.scorer import AskedQuery, TrainingSet
from rapidin.evaluation.methods.tracin import Checkpoint, TracIn
from rapidin.model.loading import load_model
from rapidin.model.store_model import StoreModel
from rapidin.search.queries import query_of_prompt
from rapidin.settings.store_settings import ModelSettings
from rapidin.text import EncodedSample
from tests import tiny, worlds
from tests.attribution.gradients.test_against_autograd import Tokens, random_samples, traced
from tests.attribution.influence.test_influence_against_autograd import budget_of, engine_of


def gradient(model: nn.Module, sample: Tokens) -> list[Tensor]:
    """The oracle: of a sample's mean loss, flattened by parameter tensor, float64."""
    ids = torch.tensor([sample.ids])
    labels = ids.masked_fill(~torch.tensor([sample.targets]), -100)
    loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1].double(), labels[0, 1:])
    parameters = dict(model.named_parameters())
    wanted = [parameters[name].requires_grad_() for name in traced(model)]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [
        torch.zeros(p.numel(), dtype=torch.float64) if g is None else g.flatten().double()
        for p, g in zip(wanted, found, strict=True)
    ]


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "mixtral", "lora-llama", "gemma3"])
def test_products_and_norms_by_tensor(architecture: str) -> None:
    model = tiny.make(architecture)
    samples = random_samples(7, seed=3)
    oracle = [gradient(model, sample) for sample in samples]
    with engine_of(model) as engine:
        products = GradientProducts(engine, budget_of(engine), "loss")
        directions = [query_gradient(engine, sample, "loss")[0] for sample in samples[:3]]
        found = products.against(directions, samples, lambda p, n: torch.cat([p, n[:, :, None]], dim=2))
    for row, of_sample in enumerate(oracle):
        for layer, tensor in enumerate(of_sample):
            wanted = [float(tensor @ of_query[layer]) for of_query in oracle[:3]] + [float(tensor.norm())]
            sizes = [float(tensor.norm() * of_query[layer].norm()) for of_query in oracle[:3]] + [wanted[-1]]
            np.testing.assert_array_less(np.abs(found[row, layer] - wanted), np.array(sizes) * 1e-4 + 1e-7)


def test_query_gradients_know_when_there_is_none() -> None:
    model = tiny.make("llama-tied")
    (tokens,) = random_samples(1, seed=3)
    sample = EncodedSample("s", tuple(tokens.ids), tuple(tokens.targets), False, "", "")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with engine_of(model) as engine, pytest.raises(GradientError, match="sample 's'"):
        query_gradient(engine, sample, "loss")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    directory = tmp_path_factory.mktemp("tracin")
    data = worlds.write_rows(directory / "train.jsonl", worlds.rows(12))
    rapidin.ingest_files(
        directory / "store", [data], model=str(model_directory), projection_dim=256, curvature=False
    )
    return directory / "store"


@pytest.mark.parametrize("normalise_layers", [False, True])
def test_scores_are_sums_over_checkpoints(
    store: Path, other_model_directory: Path, normalise_layers: bool
) -> None:
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        samples = sorted(opened.list(), key=lambda sample: sample.id)
        training = TrainingSet(samples, model)
        asked = [
            AskedQuery(*model.prepared(query_of_prompt(prompt, answer, opened.settings.text), 8))
            for prompt, answer in (("Hello?", "yes it is"), ("What is red?", "a colour"))
        ]
        checkpoints = [
            Checkpoint(model.settings.model, 0.5),
            Checkpoint(str(other_model_directory), 2.0),
        ]
        seen: list[tuple[int, int]] = []
        scores = TracIn(model, normalise_layers=normalise_layers, checkpoints=checkpoints).scores(
            asked, training, lambda _, done, of: seen.append((done, of))
        )
        alone = TracIn(model, normalise_layers=normalise_layers).scores(asked, training)
        encoded = list(training.encoded())
    wanted = np.zeros((2, len(encoded)))
    for number, checkpoint in enumerate(checkpoints):
        module = load_model(ModelSettings(model=checkpoint.place), "cpu").model
        matrices = [p.dim() > 1 for p in module.parameters()]  # what a store traces
        of_samples = [list(compress(gradient(module, sample), matrices)) for sample in encoded]
        of_queries = [list(compress(gradient(module, query.encoded), matrices)) for query in asked]
        here = np.array([[score(q, s, normalise_layers) for s in of_samples] for q in of_queries])
        wanted += checkpoint.learning_rate * here
        if number == 0:
            np.testing.assert_allclose(alone, here, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-5)
    assert seen[-1] == (2 * len(encoded), 2 * len(encoded))
    assert seen == sorted(seen)


def test_checkpoints_are_trusted_as_the_model_is(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def load(settings: ModelSettings, device: str, trust: bool = False) -> None:
        seen.append(trust)
        raise ModelError("enough")

    with rapidin.Store.open(store) as opened:
        for trust in (False, True):
            with StoreModel(opened, trust_remote_code=trust) as model, monkeypatch.context() as patched:
                patched.setattr("rapidin.evaluation.methods.tracin.load_model", load)
                scorer = TracIn(model, checkpoints=[Checkpoint(model.settings.model, 1.0)])
                with pytest.raises(ModelError, match="enough"):
                    scorer.scores([], TrainingSet([], model))
    assert seen == [False, True]


def test_checkpoints_are_computed_in_batches_of_the_given_size(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of tokens is the caller's, and the device is the checkpoint's, not the store model's."""
    seen = []
    real = TokenBudget.for_device

    def watched(tokens: int | None, device: torch.device, dimension: int) -> TokenBudget:
        seen.append((tokens, device.type))
        return real(tokens, device, dimension)

    with rapidin.Store.open(store) as opened, StoreModel(opened, tokens_per_batch=7) as model:
        monkeypatch.setattr(TokenBudget, "for_device", watched)
        TracIn(model, checkpoints=[Checkpoint(model.settings.model, 1.0)]).scores([], TrainingSet([], model))
    assert seen == [(7, "cpu")]


def score(query: list[Tensor], sample: list[Tensor], normalise_layers: bool) -> float:
    """Eq. 5, of whole gradients or as the mean of cosines."""
    products = [float(q @ s) for q, s in zip(query, sample, strict=True)]
    if not normalise_layers:
        return sum(products)
    sizes = [float(q.norm() * s.norm()) for q, s in zip(query, sample, strict=True)]
    return sum(p / size if size else 0.0 for p, size in zip(products, sizes, strict=True)) / len(products)

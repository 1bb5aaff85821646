"""Scorers without gradients, and RapidIn's own, against slow computations."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer
import torch

from rapidin.attribution import GaussNewton
from rapidin.errors import DependencyError, SettingError, StoreError
from rapidin.evaluation.experiments.experiment_data import Label, answered_queries, read_query_rows, training_set
from rapidin.evaluation.methods.baselines import (
    Bm25Scorer,
    EmbeddingScorer,
    RandomScorer,
    SentenceScorer,
    normalised,
)
from rapidin.evaluation.methods.influence_functions import InfluenceFunction
from rapidin.evaluation.methods.registry import METHODS, methods_to_run
from rapidin.evaluation.methods.scorer import AskedQuery, Scorer, TrainingSet
from rapidin.evaluation.methods.stored_scores import RapidinScorer, RerankedScorer
from rapidin.evaluation.methods.tracin import TracIn
from rapidin.model.store_model import StoreModel
from rapidin.storage import Store
from rapidin.support.optional_packages import package
from tests.evaluation import worlds_of_colours


class World:
    def __init__(self, store: Store, queries: Path) -> None:
        self.store = store
        self.model = StoreModel(store, device="cpu")
        self.training = training_set(store, self.model, ())
        query_rows = read_query_rows(queries, store, Label(worlds_of_colours.LABEL))
        self.queries = answered_queries(self.model, query_rows, 16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[World]:
    path, queries = worlds_of_colours.make(tmp_path_factory.mktemp("scorers"), model_directory)
    with Store.open(path) as store:
        made = World(store, queries)
        yield made
        made.model.close()


def text_of(query: AskedQuery) -> str:
    return query.query.prompt + query.query.generation


def test_queries_of_another_kind_are_left_out(world: World) -> None:
    assert [query.query.id for query in world.queries] == ["a", "b", "d"]
    assert [sample.id for sample in world.training.samples] == sorted(f"row-{number}" for number in range(60))


def test_bm25_against_its_formula(world: World) -> None:
    """Lucene's form (Kamphuis et al. 2020) with k1 = 1.5, b = 0.75."""
    stem = Stemmer.Stemmer("english").stemWord
    stop = set(bm25s.stopwords.STOPWORDS_EN)

    def words(text: str) -> list[str]:
        return [stem(word) for word in re.findall(r"(?u)\b\w\w+\b", text.lower()) if word not in stop]

    documents = [Counter(words(sample.text)) for sample in world.training.samples]
    lengths = [sum(document.values()) for document in documents]
    mean = sum(lengths) / len(lengths)
    scorer = Bm25Scorer()
    scorer.prepare(world.training)
    found = scorer.scores(world.queries, world.training)
    for row, query in enumerate(world.queries):
        for column, document in enumerate(documents):
            wanted = 0.0
            for word in words(text_of(query)):
                holders = sum(word in other for other in documents)
                if holders:
                    idf = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
                    saturation = document[word] + 1.5 * (0.25 + 0.75 * lengths[column] / mean)
                    wanted += idf * document[word] / saturation
            assert found[row, column] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_bm25_of_samples_without_words_says_nothing(world: World) -> None:
    scorer = Bm25Scorer()
    silent = [replace(sample, prompt="", response="the") for sample in world.training.samples[:2]]
    training = TrainingSet(silent, world.model)
    scorer.prepare(training)
    assert not scorer.scores(world.queries, training).any()


def test_embeddings_are_means_of_last_hidden_states(world: World) -> None:
    def embedded(ids: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad(), world.model.exclusive() as parts:
            states = parts.module(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        mean = states[0].mean(dim=0).numpy()
        return mean / np.linalg.norm(mean)

    samples = np.stack([embedded(sample.ids) for sample in world.training.encoded()])
    scorer = EmbeddingScorer(world.model)
    scorer.prepare(world.training)
    found = scorer.scores(world.queries, world.training)
    wanted = np.stack([embedded(query.encoded.ids) for query in world.queries]) @ samples.T
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_chance_does_not_depend_on_the_order(world: World) -> None:
    scores = RandomScorer(1).scores(world.queries, world.training)
    turned = TrainingSet(world.training.samples[::-1], world.model)
    np.testing.assert_array_equal(RandomScorer(1).scores(world.queries[::-1], turned), scores[::-1, ::-1])
    assert not np.array_equal(RandomScorer(2).scores(world.queries, world.training), scores)
    assert 0 <= scores.min() < 0.05 < 0.95 < scores.max() <= 1


def test_stored_scores_are_the_exact_ones_up_to_noise(world: World) -> None:
    found = RapidinScorer(world.store, world.model).scores(world.queries, world.training)
    exact = TracIn(world.model, normalise_layers=True).scores(world.queries, world.training)
    assert np.abs(found - exact).max() < 5 / np.sqrt(16384)


def test_reranked_ends_are_in_exact_order(world: World) -> None:
    estimates = RapidinScorer(world.store, world.model)
    before = estimates.scores(world.queries, world.training)
    after = RerankedScorer(estimates, world.model, 9).scores(world.queries, world.training)
    exact = TracIn(world.model, normalise_layers=True).scores(world.queries, world.training)
    for old, new, true in zip(before, after, exact, strict=True):
        order, anew = np.argsort(-old), np.argsort(-new)
        np.testing.assert_array_equal(np.sort(old), np.sort(new))
        assert set(order[:9]) == set(anew[:9])
        assert set(order[-9:]) == set(anew[-9:])
        np.testing.assert_array_equal(order[9:-9], anew[9:-9])
        assert (np.diff(true[anew[:9]]) <= 1e-7).all()
        assert (np.diff(true[anew[-9:]]) <= 1e-7).all()


SCORERS: dict[str, Callable[[World], Scorer]] = {
    "tracin": lambda world: TracIn(world.model),
    "tracin-ln": lambda world: TracIn(world.model, normalise_layers=True),
    "influence": lambda world: InfluenceFunction(
        "influence", world.model, GaussNewton(samples=1, iterations=1, damping=1.0)
    ),
    "embedding": lambda world: EmbeddingScorer(world.model),
    "rapidin": lambda world: RapidinScorer(world.store, world.model),
    "rapidin+rerank": lambda world: RerankedScorer(RapidinScorer(world.store, world.model), world.model, 2),
}


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_waits_for_its_turn(world: World, name: str) -> None:
    few = TrainingSet(world.training.samples if "rapidin" in name else world.training.samples[:4], world.model)
    scorer = SCORERS[name](world)
    if isinstance(scorer, EmbeddingScorer):
        scorer.prepare(few)
    with ThreadPoolExecutor(1) as thread:
        with world.model.exclusive():
            future = thread.submit(scorer.scores, world.queries[:1], few)
            time.sleep(0.1)
            assert not future.done()
        assert future.result(timeout=60).shape == (1, len(few))


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_never_uses_the_model_outside_its_turn(world: World, name: str) -> None:
    few = TrainingSet(world.training.samples if "rapidin" in name else world.training.samples[:4], world.model)
    scorer = SCORERS[name](world)
    free = []

    def try_to_take(*_: object) -> None:
        taken = other.submit(world.model.lock.acquire, blocking=False).result()
        if taken:
            other.submit(world.model.lock.release).result()
        free.append(taken)

    with ThreadPoolExecutor(1) as other:
        with world.model.exclusive() as parts:
            handle = parts.module.register_forward_pre_hook(try_to_take)
        try:
            if isinstance(scorer, EmbeddingScorer):
                scorer.prepare(few)
            scorer.scores(world.queries[:1], few)
        finally:
            handle.remove()
    assert free
    assert not any(free)


def test_a_store_that_changed_meanwhile(world: World) -> None:
    fewer = TrainingSet(world.training.samples[1:], world.model)
    with pytest.raises(StoreError, match="was changed during the evaluation"):
        RapidinScorer(world.store, world.model).scores(world.queries, fewer)


def test_names_of_methods() -> None:
    assert methods_to_run(["bm25", "bm25", "rapidin"]) == ["rapidin", "bm25"]
    assert methods_to_run(["all"]) == [name for name in METHODS if name != "ek-fac"]
    assert methods_to_run(["all", "ek-fac"], knows_tokens=True)[-1] == "ek-fac"
    assert "bm25" not in methods_to_run(["all"], knows_tokens=True)
    with pytest.raises(SettingError, match=r"'bm52' is unknown: give one of rapidin, .*embedding"):
        methods_to_run(["bm52"])
    with pytest.raises(SettingError, match="cannot be asked about single words"):
        methods_to_run(["bm25"], knows_tokens=True)


def test_a_missing_package_says_how_it_is_installed() -> None:
    with pytest.raises(DependencyError, match=r"needs the package nonsense-kit.*rapidin\[eval\]"):
        package("no_such_module", "nonsense-kit")


@pytest.mark.slow  # its import alone takes long
def test_a_sentence_transformers_model(world: World, model_directory: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(model_directory), device="cpu").save(str(tmp_path / "sentences"))
    scorer = SentenceScorer(str(tmp_path / "sentences"), "cpu")
    scorer.prepare(world.training)
    found = scorer.scores(world.queries, world.training)
    model = SentenceTransformer(str(tmp_path / "sentences"), device="cpu")
    samples = model.encode([sample.text for sample in world.training.samples])
    for row, query in enumerate(world.queries):
        own = model.encode(text_of(query))
        wanted = samples @ own / np.linalg.norm(samples, axis=1) / np.linalg.norm(own)
        np.testing.assert_allclose(found[row], wanted, atol=1e-4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="sentence-transformers"):
        SentenceScorer(str(tmp_path / "empty"), "cpu")


def test_vectors_of_no_length_stay() -> None:
    found = normalised(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], atol=1e-6)

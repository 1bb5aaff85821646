"""Query loss differences: the arithmetic by hand, and models that are not trained twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import rapidin
from rapidin.errors import ComputationError
from rapidin.evaluation.experiments.datamodeling import Retraining, linear_datamodeling
from rapidin.evaluation.experiments.experiment_data import training_set
from rapidin.evaluation.experiments.retrained_queries import ModelBank, RetrainingPlace, TrainingRuns
from rapidin.evaluation.experiments.subset_correlations import subset
from rapidin.evaluation.experiments.top_removal import Removal, query_loss_differences, without_best
from rapidin.evaluation.metrics.ranking_measures import tie_order
from rapidin.evaluation.retraining.trainer import OUTPUT, Job, Tokens, Trainer, Training, losses_of, trained
from rapidin.model.store_model import StoreModel
from rapidin.model.training_loop import Schedule
from rapidin.records import QldReport
from tests import worlds

BRIEF = Training(schedule=Schedule(epochs_all=0, epochs_response=2, batch=4, warm_up=1), seed=5)
ROWS = 12
POOL = "rapidin.evaluation.experiments.retrained_queries.retrained_losses"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    directory = tmp_path_factory.mktemp("qld")
    data = worlds.write_rows(directory / "train.jsonl", worlds.rows(ROWS))
    worlds.write_rows(directory / "queries.jsonl", worlds.rows(2, first=50))
    worlds.write_rows(directory / "other.jsonl", worlds.rows(1, first=70))
    rapidin.ingest_files(
        directory / "store", [data], model=str(model_directory), projection_dim=128, curvature=False
    )
    rapidin.ingest_files(
        directory / "second", [data], model=str(model_directory), projection_dim=256, bits=16, curvature=False
    )
    return directory / "store"


def run(
    store: Path, work: Path, methods: list[str], removal: Removal, queries: str = "queries.jsonl"
) -> QldReport:
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        place = RetrainingPlace(opened, model, work, device="cpu")
        return query_loss_differences(place, store.parent / queries, methods, removal)


def scores_of(store: Path, work: Path, method: str) -> np.ndarray:
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        place = RetrainingPlace(opened, model, work, device="cpu")
        asked = place.asked(store.parent / "queries.jsonl")
        return place.scores([method], asked, place.training())[0].scores


def test_two_queries_by_hand(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample lowers each query's loss by a number of its own; seed and pairs of samples do the rest."""
    lowers = np.random.default_rng(0).uniform(0, 0.2, size=(ROWS, 2))

    def loss(stays: np.ndarray, seed: int) -> np.ndarray:
        return 3 - stays @ lowers + 0.01 * seed * stays[0] * stays[1]

    def losses(job: Job, members: np.ndarray, seeds: list[int], *_: object) -> np.ndarray:
        return np.array([loss(row, seed) for row, seed in zip(members, seeds, strict=True)])

    monkeypatch.setattr(POOL, losses)
    removal = Removal(BRIEF, seed=3, repeats=2, top=0.2, random_sets=4)
    report = run(store, tmp_path, ["rapidin", "bm25"], removal)
    assert (report.removed, report.samples, report.queries) == (2, 12, ("row-50", "row-51"))

    def mean_loss(stays: np.ndarray) -> np.ndarray:
        return (loss(stays, 5) + loss(stays, 6)) / 2

    whole = mean_loss(np.ones(ROWS))
    by_chance = []
    for number in range(4):
        stays = np.ones(ROWS)
        stays[np.random.default_rng([3, number]).permutation(ROWS)[:2]] = 0
        by_chance.append(mean_loss(stays) - whole)
    chance = np.mean(by_chance, axis=0)
    assert report.random_by_query == pytest.approx(chance)
    assert report.random.mean == pytest.approx(chance.mean())
    assert report.loss.mean == pytest.approx(whole.mean())
    for method in report.methods:
        scores = scores_of(store, tmp_path, method.name)
        rises = []
        for query in range(2):
            stays = np.ones(ROWS)
            stays[np.argsort(-scores[query], kind="stable")[:2]] = 0
            rises.append(mean_loss(stays)[query] - whole[query])
        assert method.by_query == pytest.approx(rises)
        assert method.rise.mean == pytest.approx(np.mean(rises))
        assert method.beyond_random.mean == pytest.approx(np.mean(rises - chance))
    json.dumps(rapidin.to_json(report), allow_nan=False)


def test_ties_do_not_favour_the_first_samples() -> None:
    ids = [str(number) for number in range(1000)]
    ties = tie_order(ids)
    stays = without_best(np.zeros(1000, dtype=np.float32), ties, 100)
    assert (~stays).sum() == 100
    assert (~stays[:100]).sum() < 30
    scores = np.arange(1000, dtype=np.float32)
    assert np.flatnonzero(~without_best(scores, ties, 3)).tolist() == [997, 998, 999]


class TrainsHere:
    """Stands in for the pool of processes: trains here, as its processes do, and counts the models."""

    def __init__(self) -> None:
        self.trained: list[Path] = []
        self.loaded: list[Path] = []

    def pool(self, job: Job, size: int, trainer: str) -> TrainsHere:
        self._trainer = Trainer(job)
        return self

    def __enter__(self) -> TrainsHere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, train: object, numbers: list[int]) -> None:
        for number in numbers:
            train(number)  # type: ignore[operator]

    def train(self, number: int, place: Path, members: list[int], seed: int) -> None:
        (self.loaded if (place / OUTPUT).is_dir() else self.trained).append(place)
        self._trainer.train(place, members, seed)


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch) -> TrainsHere:
    trains = TrainsHere()
    monkeypatch.setattr("rapidin.evaluation.retraining.retraining_pool._Pool", trains.pool)
    return trains


def test_models_are_trained_once_for_every_method_store_and_query(
    store: Path, tmp_path: Path, trains: TrainsHere
) -> None:
    removal = Removal(BRIEF, top=0.1, random_sets=2)
    first = run(store, tmp_path, ["rapidin"], removal)
    assert len(trains.trained) == len(set(trains.trained)) == first.models <= 1 + 2 + 2
    # The oracle: the same training by hand.
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        samples = [Tokens(one.ids, one.targets) for one in training_set(opened, model, ()).encoded()]
        asked = RetrainingPlace(opened, model, tmp_path).asked(store.parent / "queries.jsonl")
        queries = [Tokens(one.encoded.ids, one.encoded.targets) for one in asked]

        def losses(without: int | None) -> list[float]:
            rows = [sample for number, sample in enumerate(samples) if number != without]
            return losses_of(trained(BRIEF, model.settings.model, rows), queries)

        best = scores_of(store, tmp_path, "rapidin").argmax(axis=1)
        whole = losses(None)
        expected = [losses(int(best[query]))[query] - whole[query] for query in range(2)]
    assert first.methods[0].by_query == pytest.approx(expected, rel=1e-4, abs=1e-6)

    trains.trained.clear()
    again = run(store, tmp_path, ["rapidin"], removal)
    assert again.methods[0].by_query == first.methods[0].by_query
    assert (trains.trained, trains.loaded) == ([], [])
    second = run(store.parent / "second", tmp_path, ["rapidin"], removal)
    assert second.work == first.work  # the samples are the same; K and bits decide no model
    assert second.random == first.random
    assert len(trains.trained) <= 2  # only removals that differ
    trains.trained.clear()
    run(store, tmp_path, ["rapidin", "bm25"], removal)
    assert len(trains.trained) <= 2
    # Other queries are asked about the models that are kept.
    trains.trained.clear()
    run(store, tmp_path, ["rapidin"], removal, "other.jsonl")
    assert len(trains.loaded) >= 3
    assert len(trains.trained) <= 1
    assert all((place / OUTPUT / "model.safetensors").is_file() for place in set(trains.loaded))


def test_a_kept_model_has_the_losses_that_it_had_in_training(
    store: Path, tmp_path: Path, trains: TrainsHere
) -> None:
    members = np.stack([np.ones(ROWS, dtype=bool), subset(ROWS, 0.5, 0, 0)])
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        place = RetrainingPlace(opened, model, tmp_path, device="cpu")
        asked = place.asked(store.parent / "queries.jsonl")
        both = ModelBank(place, place.training(), asked, TrainingRuns(BRIEF, keep=True))
        trained_now = both.losses(members)
        assert trained_now.shape == (1, 2, 2)
        one = ModelBank(place, place.training(), asked[:1], TrainingRuns(BRIEF))
        assert one.losses(members)[0, :, 0].tolist() == pytest.approx(trained_now[0, :, 0].tolist(), rel=1e-6)
    assert (len(trains.trained), len(trains.loaded)) == (2, 2)
    assert all((place / OUTPUT).is_dir() for place in trains.trained)  # a run that keeps none removes none


def test_lds_and_qld_share_a_bank(store: Path, tmp_path: Path, trains: TrainsHere) -> None:
    """With 12 samples, 60 random removals of one sample are all that there are, so only the whole set is new."""
    with rapidin.Store.open(store) as opened, StoreModel(opened) as model:
        place = RetrainingPlace(opened, model, tmp_path, device="cpu")
        queries = store.parent / "queries.jsonl"
        lds = linear_datamodeling(place, queries, ["random"], Retraining(BRIEF, subsets=60, fraction=11 / 12))
    assert len(trains.trained) == ROWS
    trains.trained.clear()
    qld = run(store, tmp_path, ["rapidin"], Removal(BRIEF, top=0.1, random_sets=2, keep=False))
    assert qld.work == lds.work
    assert len(trains.trained) == 1


def test_losses_that_are_not_finite_are_an_error(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(job: Job, members: np.ndarray, *_: object) -> np.ndarray:
        return np.full((len(members), 2), [1.0, float("nan")])

    monkeypatch.setattr(POOL, losses)
    with pytest.raises(ComputationError, match="query 2: its loss is not finite under a retrained model"):
        run(store, tmp_path, ["rapidin"], Removal(BRIEF, top=0.1))

"""A store's model in several threads: its methods wait for their turn, and callers need not."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import rapidin
from rapidin.attribution import BatchRunner
from rapidin.errors import GradientError, RowError, SettingError
from rapidin.model.store_model import StoreModel
from rapidin.records import Sample
from rapidin.search.queries import query_of_prompt
from rapidin.settings import TextSettings
from rapidin.text import EncodedSample, TextSample
from tests import worlds


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[rapidin.Store]:
    directory = tmp_path_factory.mktemp("store-model")
    data = worlds.write_rows(directory / "data.jsonl", worlds.rows(12))
    rapidin.ingest_files(
        directory / "store", [data], model=str(model_directory), projection_dim=1024, curvature=False
    )
    with rapidin.Store.open(directory / "store") as store:
        yield store


@pytest.fixture(scope="module")
def model(store: rapidin.Store) -> Iterator[StoreModel]:
    with StoreModel(store, device="cpu") as model:
        yield model


@pytest.fixture
def sample(store: rapidin.Store) -> Sample:
    return next(iter(store.list(limit=1)))


def query(answer: str | None = "It is red.") -> TextSample:
    return query_of_prompt("Name a colour.", answer, TextSettings())


def encoded(model: StoreModel) -> EncodedSample:
    return model.prepared(query(), 4)[1]


CALLS: dict[str, Callable[[StoreModel, EncodedSample, Sample], object]] = {
    "prepared": lambda model, *_: model.prepared(query(None), 4),
    "prepared with a span": lambda model, *_: model.prepared(query(), 4, ["red"]),
    "vectors": lambda model, one, _: model.vectors([one]),
    "token_vectors": lambda model, one, _: model.token_vectors(one),
    "token_spans": lambda model, one, _: model.token_spans(one),
    "count_tokens": lambda model, *_: model.count_tokens(query()),
    "encode_stored": lambda model, _, sample: model.encode_stored(sample),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_method_waits_for_its_turn(model: StoreModel, sample: Sample, name: str) -> None:
    one = encoded(model)
    with ThreadPoolExecutor(1) as thread:
        with model.exclusive():
            future = thread.submit(CALLS[name], model, one, sample)
            time.sleep(0.1)
            assert not future.done()
        future.result(timeout=60)


def test_two_threads_never_compute_at_the_same_time(model: StoreModel, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work = 0
    most = 0
    compute = BatchRunner.rapidgrads

    def counted(*arguments):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.02)
        yield from compute(*arguments)
        at_work -= 1

    monkeypatch.setattr(BatchRunner, "rapidgrads", counted)
    one = encoded(model)
    alone = model.vectors([one])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: model.vectors([one]), range(4)))
    assert most == 1
    for vectors in found:
        np.testing.assert_array_equal(vectors, alone)


def test_the_thread_that_has_the_model_may_call_its_methods(model: StoreModel) -> None:
    with model.exclusive() as parts:
        assert model.count_tokens(query()) == len(parts.encoder.encode(query()).ids)


def test_errors_name_a_query_by_its_id_and_not_by_a_file(
    model: StoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingError, match="blue"):
        model.prepared(query(), 4, ["blue"])
    with pytest.raises(RowError, match=r"^the query: the prompt alone fills"):
        model.prepared(query_of_prompt("long " * 300, "It is.", TextSettings()), 4)
    one = encoded(model)

    def failing(*_):
        yield [0], SimpleNamespace(vectors=np.zeros((1, 8), np.float32), problems={0: "its gradient is zero"})

    monkeypatch.setattr(BatchRunner, "rapidgrads", failing)
    with pytest.raises(GradientError, match=r"^query '0': its gradient is zero; ask about another generation$"):
        model.vectors([one])

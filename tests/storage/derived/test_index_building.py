"""Building indexes: what is chosen and measured, extending, advice, refusals, and how vectors are folded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from rapidin.errors import IndexNotFoundError, SettingError, StoreLockedError
from rapidin.storage import Store
from rapidin.storage.derived.indexes import clustering
from rapidin.storage.derived.indexes.folding import Folding
from rapidin.storage.derived.indexes.ivf_parameters import IvfParameters
from rapidin.storage.derived.indexes.tuning import measure
from tests.storage.derived.clusters import (
    CLUSTERS,
    COUNT,
    KINDS,
    WIDTH,
    clustered,
    clustered_store,
    commit,
    settings_of,
)
from tests.storage.stores import random_vectors

QUERIES = clustered(5, seed=2)


def index_files(store: Store) -> set[str]:
    folder = store.path / "indexes"
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_curve_equals_counting(data) -> None:
    """For every number of lists: which neighbours are in them, and how many rows."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    queries, nlist, neighbours = (data.draw(st.integers(1, most)) for most in (4, 6, 5))
    order = np.array([random.permutation(nlist) for _ in range(queries)])
    lists = random.integers(0, nlist, (queries, neighbours)).astype(np.int32)
    sizes = random.integers(0, 9, nlist)
    sizes[0] += 1
    curve = measure(order, lists, sizes)
    for nprobe in range(1, nlist + 1):
        found = sum(one in order[q, :nprobe] for q in range(queries) for one in lists[q])
        read = sum(int(sizes[one]) for q in range(queries) for one in order[q, :nprobe])
        assert curve.at(nprobe) == pytest.approx(
            (found / (queries * neighbours), read / (queries * int(sizes.sum())))
        )
    for target in (0.01, 0.5, 1.0):
        least = curve.least(target)
        assert curve.at(least)[0] >= target
        assert least == 1 or curve.at(least - 1)[0] < target


def test_folding_keeps_inner_products() -> None:
    """Exactly where nothing is folded, and else with the variance of a random projection, 1/r."""
    vectors = random_vectors(40, dimension=256)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = Folding(256).directions(vectors)
    np.testing.assert_allclose(directions @ directions.T, vectors @ vectors.T, atol=1e-5)
    wide = random_vectors(60, dimension=16384)
    wide[30:] += wide[:30]
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    folding = Folding(16384)
    folded = folding.directions(wide)
    assert folding.width == folded.shape[1] == 4096
    errors = (folded @ folded.T - wide @ wide.T)[np.triu_indices(60, 1)]
    assert abs(errors.mean()) < 3e-3
    assert 0.5 < errors.var() * 4096 < 1.5


def test_folding_is_part_of_the_files() -> None:
    """Signs that change would make every stored centroid worthless."""
    signs = np.sign(Folding(4096).directions(np.ones((1, 4096), np.float32))[0])
    assert (signs[:16] > 0).astype(int).tolist() == [1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1]
    assert int((signs > 0).sum()) == 2039


def test_folding_of_extreme_and_empty_vectors() -> None:
    folding = Folding(64)
    extreme = np.stack([np.full(64, v, np.float32) for v in (3e38, 1e-38, 1, 0)])
    directions = folding.directions(extreme)
    np.testing.assert_allclose(directions[:3], directions[[2, 2, 2]], rtol=1e-5)
    assert not directions[3].any()
    assert folding.directions(extreme[:0]).shape == (0, 64)


def test_numbers_of_lists() -> None:
    assert clustering.list_counts(10_000, 9_000, None) == [200, 300]
    assert clustering.list_counts(1_000_000, 65_536, None) == [2000, 2184]
    assert clustering.list_counts(100_000, 90_000, None) == [632, 1265, 2530]
    assert clustering.list_counts(1, 1, None) == [1]
    assert clustering.list_counts(100, 90, 90) == [90]
    with pytest.raises(SettingError, match="--nlist 91 cannot be used: give 1 to 90"):
        clustering.list_counts(100, 90, 91)


def test_what_was_asked_for_is_taken(path: Path) -> None:
    steps = []
    with clustered_store(path) as store:
        report = store.build_index(
            "ivf", nlist=7, nprobe=3, train_sample=100, on_progress=lambda *step: steps.append(step)
        )
        given = {name: report.parameters[name] for name in ("nlist", "nprobe", "nprobe_opponents", "train_rows")}
        assert given == {"nlist": 7, "nprobe": 3, "nprobe_opponents": 3, "train_rows": 100}
        assert [name for name, _, _ in steps] == [*("sample", "train"), *["assign"] * 4, *["measure"] * 2]
        lower = store.build_index("ivf", nlist=18, recall=0.3, retrain=True).parameters
        higher = store.build_index("ivf", nlist=18, recall=1.0, retrain=True).parameters
        assert lower["recall_target"] == 0.3 <= lower["recall"]
        assert higher["recall"] == 1.0
        assert lower["nprobe"] <= higher["nprobe"]
        assert lower["scanned_opponents"] < higher["scanned_opponents"]


def test_the_same_rows_give_the_same_lists(path: Path) -> None:
    with clustered_store(path) as store:
        first = dict(store.build_index("ivf").parameters)
        second = dict(store.build_index("ivf", retrain=True).parameters)
        assert first.pop("build") != second.pop("build")
        assert first == second


@pytest.mark.parametrize("count", [1, 2, 5, 31])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_stores(path: Path, kind: str, count: int) -> None:
    vectors = clustered(count, seed=1)
    with Store.create(path, settings_of(16)) as store:
        commit(store, 0, vectors)
        assert store.build_index(kind).covered == count
        with store.snapshot() as snapshot:
            nprobe = 10 if kind == "ivf" else None
            found = snapshot.search(vectors, 1, index=kind, nprobe=nprobe).largest
            assert [hits[0].id for hits in found] == [f"s{i:04}" for i in range(count)]


def test_advice_when_the_store_has_doubled(path: Path) -> None:
    with clustered_store(path, kinds=("ivf",)) as store:
        commit(store, COUNT, clustered(COUNT, seed=5))
        assert store.build_index("ivf").advice is None
        commit(store, 2 * COUNT, clustered(1, seed=6))
        assert "grown from 600 to 1,201" in store.build_index("ivf").advice
        assert store.info().indexes[1].advice == store.build_index("ivf").advice
        report = store.build_index("ivf", retrain=True)
        assert (report.trained, report.advice, report.parameters["rows"]) == (True, None, 1201)


def test_advice_when_new_rows_fit_badly(path: Path) -> None:
    with clustered_store(path, kinds=("ivf",)) as store:
        commit(store, COUNT, clustered(100, seed=5))
        fitting = store.build_index("ivf")
        assert fitting.advice is None
        assert fitting.parameters["added_similarity"] == pytest.approx(fitting.parameters["similarity"], rel=0.1)
        commit(store, COUNT + 100, np.random.default_rng(0).standard_normal((300, WIDTH)).astype(np.float32))
        report = store.build_index("ivf")
        assert "400 rows added since training fit its lists badly" in report.advice
        assert report.parameters["added_rows"] == 400
        assert store.info().indexes[1].advice == report.advice


def test_few_new_rows_tell_nothing(path: Path) -> None:
    """Neither less than some dozens nor less than a few per cent of the store."""
    random = np.random.default_rng(0)
    with clustered_store(path, kinds=("ivf",)) as store:
        commit(store, COUNT, random.standard_normal((49, WIDTH)).astype(np.float32))
        assert store.build_index("ivf").advice is None
        commit(store, COUNT + 49, random.standard_normal((1, WIDTH)).astype(np.float32))
        assert "50 rows added since training fit its lists badly" in store.build_index("ivf").advice


def advice(rabitq_gains: bool = True, live: int = 1000, **changes: object) -> str | None:
    values = {"build": "b", "width": 4, "nlist": 9, "nprobe": 5, "nprobe_opponents": 5, "recall_target": 0.95}
    values |= {"recall": 0.96, "recall_opponents": 0.96, "scanned": 0.1, "scanned_opponents": 0.1}
    values |= {"queries": 100, "train_rows": 900, "rows": 1000, "similarity": 0.5}
    return IvfParameters(**(values | changes)).advice(live, rabitq_gains)


def test_which_advice_is_given() -> None:
    badly = {"added_rows": 500, "added_similarity": 0.1}
    assert advice() is None
    assert "fit its lists badly" in advice(**badly)
    assert advice(live=20_000, rows=19_000, **badly | {"added_rows": 500}) is None
    assert "hardly any clusters" in advice(scanned=0.7, **badly)
    assert "exact search or rabitq is better" in advice(scanned=0.7)
    assert "so exact search is better" in advice(scanned=0.7, rabitq_gains=False)
    assert "misses too much" in advice(recall=0.5)
    assert "misses too much" in advice(recall_opponents=0.5)


def test_an_index_that_is_replaced_goes_at_once(path: Path) -> None:
    """Unless somebody reads."""
    with clustered_store(path, kinds=KINDS) as store:
        for kind in KINDS:
            before = index_files(store)
            store.build_index(kind, retrain=True)
            assert len(index_files(store)) == len(before)
            assert index_files(store) != before
            assert store.info().bytes_unnamed == 0
        with store.snapshot() as snapshot:
            before = snapshot.search(QUERIES, 3, index="ivf").largest
            store.build_index("ivf", retrain=True)
            assert store.info().bytes_unnamed > 0
            assert snapshot.search(QUERIES, 3, index="ivf").largest == before


def test_segments_without_live_rows_need_no_part(path: Path) -> None:
    with clustered_store(path) as store:
        store.delete([f"s{i:04}" for i in range(200)])
        for kind in KINDS:
            assert store.build_index(kind).covered == COUNT - 200
            assert (store.build_index(kind).added, store.info().indexes[1].uncovered) == (0, 0)
        assert len(index_files(store)) == 2 + 1 + 2


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("hnsw", {}, "'hnsw' is unknown: choose from ivf, rabitq"),
        ("ivf", {"recall": 0.0}, "--recall 0.0 cannot be used"),
        ("ivf", {"recall": 1.1}, "--recall 1.1 cannot be used"),
        ("ivf", {"nlist": 0}, "--nlist 0 cannot be used"),
        ("ivf", {"nlist": 541}, "give 1 to 540"),
        ("ivf", {"nlist": 4, "nprobe": 5}, "--nprobe 5 cannot be used: there are 4 lists"),
        ("ivf", {"train_sample": -1}, "--train-sample -1 cannot be used"),
        ("rabitq", {"nlist": 4}, "leave them out with 'rabitq'"),
        ("rabitq", {"recall": 0.95}, "leave them out with 'rabitq'"),
    ],
)
def test_settings_that_cannot_be_used(path: Path, kind: str, options: dict, message: str) -> None:
    with clustered_store(path) as store:
        with pytest.raises(SettingError, match=message):
            store.build_index(kind, **options)
        assert len(store.info().indexes) == 1
        assert not index_files(store)


def test_other_settings_need_training(path: Path) -> None:
    with clustered_store(path) as store:
        store.build_index("ivf", recall=0.9)
        for options in ({"nlist": 5}, {"nprobe": 1}, {"train_sample": 100}, {"recall": 0.5}):
            with pytest.raises(SettingError, match="add --retrain"):
                store.build_index("ivf", **options)
        store.build_index("ivf", recall=0.9)
        store.build_index("ivf")


def test_one_bit_stores_are_that_already(path: Path) -> None:
    with clustered_store(path, bits=1) as store, pytest.raises(SettingError, match="itself keeps one bit"):
        store.build_index("rabitq")


def test_dropping(path: Path) -> None:
    with clustered_store(path, kinds=KINDS) as store:
        store.drop_index("ivf")
        assert [index.name for index in store.info().indexes] == ["exact", "rabitq"]
        assert {Path(name).suffix for name in index_files(store)} == {".faiss"}
        with pytest.raises(IndexNotFoundError, match="no index 'ivf' to drop"):
            store.drop_index("ivf")
        store.drop_index("rabitq")
        assert not index_files(store)
        assert store.verify().ok


def test_one_writer(path: Path) -> None:
    with clustered_store(path) as store, store.writer():
        with pytest.raises(StoreLockedError):
            store.build_index("ivf")
        with pytest.raises(StoreLockedError):
            store.drop_index("ivf")


def test_clusters_are_found() -> None:
    """Vectors of one cluster are in one list, where there are as many lists as clusters, or nearly."""
    vectors = clustered(400, seed=3, noise=0.5)
    directions = Folding(WIDTH).directions(vectors)
    centroids = clustering.train(directions, CLUSTERS)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-4)
    lists, cosines = clustering.assign(directions, centroids)
    products = directions @ centroids.T
    assert (lists == products.argmax(axis=1)).all()
    np.testing.assert_allclose(cosines, products.max(axis=1), rtol=1e-5)
    assert cosines.mean() > 0.75
    assert (clustering.nearest_lists(directions, centroids)[:, 0] == lists).all()


def test_the_same_command_goes_on(path: Path) -> None:
    """A command that was killed comes again with its options, although it has done its work."""
    with clustered_store(path) as store:
        options = {"nlist": 5, "nprobe": 2, "train_sample": 200, "recall": 0.9}
        assert store.build_index("ivf", **options).trained
        for again in (options, {"nlist": 5}, {}):
            report = store.build_index("ivf", **again)
            assert not report.trained and report.parameters["nlist"] == 5

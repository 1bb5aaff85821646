"""Exact search against a slow oracle: all inner products, sorted in plain Python."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from rapidin.errors import SettingError, StoreError, StoreMismatchError
from rapidin.records import Hit
from rapidin.storage import Store
from rapidin.storage.scan import cpu_scan
from rapidin.storage.vectors.codecs import HalfPrecision
from rapidin.storage.vectors.codecs.decoded_slices import SlicedQueries
from tests.storage.stores import DIMENSION, halved, new_sample, random_vectors

IDS = [f"s{i}" for i in range(12)] + ["S1", "é", "漢", "\uffff", "🦙", "a'b", ""]

Truth = dict[str, tuple[np.ndarray, int]]


def oracle(truth: Truth, query: np.ndarray, k: int, largest: bool, wanted) -> list[tuple[str, float]]:
    scored = [
        (float(vector @ query), id) for id, (vector, group) in truth.items() if wanted is None or group == wanted
    ]
    scored.sort(key=lambda pair: (-pair[0] if largest else pair[0], pair[1]))
    return [(id, score) for score, id in scored[:k]]


def found(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in hits]


batch = st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 2)), unique_by=lambda pair: pair[0], max_size=10)
step = st.one_of(batch, st.sampled_from(IDS))


def small_blocks(monkeypatch: pytest.MonkeyPatch, rows: int, decoded: bool) -> None:
    """Blocks of so many rows, each worth a thread; compared where they lie, or decoded whatever the queries."""
    for name in ("SCANNED_BYTES", "SCANNED_ONCE_BYTES", "GATHERED_BYTES"):
        monkeypatch.setattr(cpu_scan, name, rows * 2 * DIMENSION)
    monkeypatch.setattr(cpu_scan, "DECODED_NUMBERS", rows * DIMENSION)
    monkeypatch.setattr(HalfPrecision, "decodes_beyond", 0 if decoded else 64)
    monkeypatch.setattr(cpu_scan, "_BYTES_PER_THREAD", 1)


@given(
    steps=st.lists(step, max_size=8),
    seed=st.integers(0, 2**32),
    queries=st.integers(1, 3),
    k=st.integers(1, 25),
    largest=st.booleans(),
    wanted=st.sampled_from([None, 0, 1, 2]),
    block_rows=st.sampled_from([1, 2, 3, 1000]),
)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_search_equals_the_oracle(
    tmp_path_factory, empty_template, monkeypatch, steps, seed, queries, k, largest, wanted, block_rows
) -> None:
    """Small integers, which half and single precision hold exactly, so that scores and ties are exact."""
    small_blocks(monkeypatch, block_rows, decoded=bool(seed % 2))
    random = np.random.default_rng(seed)
    truth: Truth = {}
    path = tmp_path_factory.mktemp("oracle") / "store"
    shutil.copytree(empty_template, path)
    with Store.open(path) as store:
        with store.writer() as writer:
            writer.commit([new_sample("other", metadata={"group": 9})], random_vectors(1))
        store.delete(["other"])
        for part in steps:
            if isinstance(part, str):
                if part in truth:
                    store.delete([part])
                    del truth[part]
                continue
            vectors = random.integers(-1, 2, (len(part), DIMENSION)).astype(np.float32)
            vectors[:, 2:] = 0  # few values, many ties
            vectors[:, 2] = 1
            scales = random.choice([0.5, 1, 4], len(part)).astype(np.float32)
            with store.writer() as writer:
                samples = [new_sample(id, metadata={"group": group}) for id, group in part]
                writer.commit(samples, vectors, scales)
            truth |= {id: (vector, group) for (id, group), vector in zip(part, vectors, strict=True)}
        question = random.integers(-2, 3, (queries, DIMENSION)).astype(np.float32)
        where = () if wanted is None else (f"group={wanted}",)
        with store.snapshot() as snapshot:
            assert snapshot.samples == len(truth)
            both = snapshot.search(question, k, where, largest)
            ids, scores = snapshot.scores(question, where)
        expected = [oracle(truth, query, k, largest, wanted) for query in question]
        assert both.ends == ((both.largest, [[]] * queries) if largest else ([[]] * queries, both.smallest))
        assert [found(hits) for hits in (both.largest if largest else both.smallest)] == expected
        assert ids == sorted(id for id, (_, group) in truth.items() if wanted in (None, group))
        for row, query in zip(scores, question, strict=True):
            assert row.tolist() == [float(truth[id][0] @ query) for id in ids]


@pytest.fixture
def thousand(store: Store) -> Store:
    """1,000 samples in 4 segments, a third of them deleted."""
    vectors = random_vectors(1000)
    with store.writer() as writer:
        for start in range(0, 1000, 250):
            samples = [new_sample(f"{i:04}", metadata={"i": i}) for i in range(start, start + 250)]
            writer.commit(samples, vectors[start : start + 250])
    store.delete([f"{i:04}" for i in range(0, 1000, 3)])
    return store


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("block_rows", [7, 400])
def test_real_numbers_in_many_blocks_and_threads(
    thousand: Store, monkeypatch, block_rows: int, decoded: bool
) -> None:
    small_blocks(monkeypatch, block_rows, decoded)
    monkeypatch.setattr(cpu_scan, "processors", lambda: 4)
    queries = random_vectors(5, seed=1)
    live = np.array([i for i in range(1000) if i % 3])
    truth = queries @ halved(random_vectors(1000)).T
    with thousand.snapshot() as snapshot:
        ids, scores = snapshot.scores(queries)
        top = snapshot.search(queries, 20).largest
        bottom = snapshot.search(queries, 20, ["i>=500"], largest=False).smallest
    assert ids == [f"{i:04}" for i in live]
    np.testing.assert_allclose(scores, truth[:, live], rtol=1e-5, atol=1e-5)
    upper = live[live >= 500]
    for query in range(5):
        best = live[np.argsort(-truth[query, live])[:20]]
        worst = upper[np.argsort(truth[query, upper])[:20]]
        assert [hit.metadata["i"] for hit in top[query]] == best.tolist()
        assert [hit.metadata["i"] for hit in bottom[query]] == worst.tolist()
        np.testing.assert_allclose([hit.score for hit in bottom[query]], truth[query, worst], rtol=1e-5)


def test_an_error_in_a_thread_is_raised(thousand: Store, monkeypatch) -> None:
    small_blocks(monkeypatch, 10, decoded=False)
    monkeypatch.setattr(cpu_scan, "processors", lambda: 4)
    with thousand.snapshot() as snapshot, pytest.raises(StoreError, match="single precision"):
        snapshot.search(np.full((1, DIMENSION), 3e38, np.float32), 1)


def test_the_nearest_of_identical_vectors_is_the_first_id(store: Store) -> None:
    with store.writer() as writer:
        for ids in ("dgb", "fac", "e"):
            writer.commit([new_sample(id) for id in ids], np.ones((len(ids), DIMENSION), np.float32))
    query = np.ones((1, DIMENSION), np.float32)
    with store.snapshot() as snapshot:
        for end in snapshot.search_ends(query, 3).ends:
            assert found(end[0]) == [("a", 64.0), ("b", 64.0), ("c", 64.0)]


def test_an_empty_store_and_an_empty_selection(store: Store) -> None:
    queries = random_vectors(3)
    with store.snapshot() as snapshot:
        assert snapshot.samples == 0
        assert snapshot.search(queries, 5).largest == [[], [], []]
        ids, scores = snapshot.scores(queries)
        assert ids == [] and scores.shape == (3, 0)
    with store.writer() as writer:
        writer.commit([new_sample("a")], random_vectors(1))
    with store.snapshot() as snapshot:
        assert snapshot.search(queries, 5, ["id=b"]).largest == [[], [], []]
        assert snapshot.search(queries[:0], 5).largest == []
        assert len(snapshot.search(queries, 5, ["id=a"]).largest[0]) == 1


def test_what_cannot_be_searched(filled: Store) -> None:
    with filled.snapshot() as snapshot:
        for k in (0, -1):
            with pytest.raises(SettingError, match="at least 1"):
                snapshot.search(random_vectors(1), k)
        for value in (np.nan, np.inf):
            queries = random_vectors(3)
            queries[2, 5] = value
            with pytest.raises(SettingError, match="query 2"):
                snapshot.search(queries, 1)
            with pytest.raises(SettingError, match="query 2"):
                snapshot.scores(queries)
        with pytest.raises(SettingError, match="query 0"):
            snapshot.search(np.full((1, DIMENSION), 1e300), 1)
        for shape in ((1, 32), (DIMENSION,)):
            with pytest.raises(StoreMismatchError):
                snapshot.search(np.ones(shape, np.float32), 1)
    with pytest.raises(StoreError, match="closed"):
        snapshot.search(random_vectors(1), 1)


def test_memory_stays_bounded_by_blocks(thousand: Store, monkeypatch) -> None:
    """No decoding beyond a block's rows, whatever the store holds."""
    monkeypatch.setattr(cpu_scan, "DECODED_NUMBERS", 16 * DIMENSION)
    monkeypatch.setattr(cpu_scan, "processors", lambda: 1)
    sizes: list[int] = []
    original = SlicedQueries.scores

    def scores(self, codes):
        sizes.append(len(codes))
        return original(self, codes)

    monkeypatch.setattr(SlicedQueries, "scores", scores)
    with thousand.snapshot() as snapshot:
        snapshot.search(random_vectors(20), 3)
        assert max(sizes) == 16
        monkeypatch.setattr(cpu_scan, "BLOCK_SCORES", 64)
        sizes.clear()
        snapshot.search(random_vectors(32), 3)
        assert max(sizes) == 2

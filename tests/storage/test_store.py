"""What is stored comes back: samples, metadata, counts, deletions, and the store's life."""

from __future__ import annotations

import datetime
import decimal
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from sqlalchemy import event

from rapidin.errors import (
    FilterError,
    SampleNotFoundError,
    SettingError,
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
)
from rapidin.records.store_reports import DerivedInfo
from rapidin.storage import MetadataChange, NewSample, Store, metadata_hash
from tests.storage.stores import (
    DIMENSION,
    halved,
    new_sample,
    numbered,
    plain,
    random_vectors,
    segment_files,
    store_settings,
)

ODD_IDS = [
    "",
    "it's",
    'say "hi"',
    "100%",
    "a\nb\tc",
    "nul\0nul",
    "näïve ☃ 漢字 🦙",
    "x" * 10_000,
    "'; DROP TABLE samples; --",
    "../../etc/passwd",
    "-1",
    "\\",
]


def test_samples_and_vectors_come_back(filled: Store, path) -> None:
    filled.close()
    with Store.open(path) as store, store.snapshot() as snapshot:
        assert [plain(sample) for sample in store.list()] == [plain(sample) for sample in numbered(0, 20)]
        assert plain(store.get("s013")) == plain(numbered(13, 14)[0])
        assert store.settings == store_settings()
        assert snapshot.samples == store.count() == 20
        ids, vectors = snapshot.scores(np.eye(DIMENSION, dtype=np.float32))
        assert ids == [f"s{i:03}" for i in range(20)]
        np.testing.assert_array_equal(vectors.T, halved(random_vectors(20)))
        assert store.verify().ok


def test_odd_ids_and_texts_come_back(store: Store) -> None:
    samples = [
        new_sample(id, prompt=f"{id}\0", response=id, file=id, metadata={id: [id, {id: None}]}) for id in ODD_IDS
    ]
    with store.writer() as writer:
        writer.commit(samples, random_vectors(len(samples)))
    for sample in samples:
        assert plain(store.get(sample.id)) == plain(sample)
    with store.snapshot() as snapshot:
        found = snapshot.search(random_vectors(1), len(samples) + 5).largest[0]
    assert sorted(hit.id for hit in found) == sorted(ODD_IDS)
    assert store.content_hashes(ODD_IDS).keys() == set(ODD_IDS)
    assert store.verify().ok
    assert store.delete(ODD_IDS) == len(ODD_IDS)


def test_forty_thousand_ids_are_looked_up(filled: Store) -> None:
    found = filled.content_hashes(f"s{i:03}" for i in range(40_000))
    assert found == {s.id: (s.content_hash, s.metadata_hash) for s in numbered(0, 20)}


def test_replaced_samples_have_only_their_new_vector(filled: Store) -> None:
    new = [new_sample("s003", content_hash="new"), new_sample("s020"), new_sample("s010", content_hash="new")]
    with filled.writer() as writer:
        writer.commit(new, random_vectors(3, seed=1))
    with filled.snapshot() as snapshot:
        ids, vectors = snapshot.scores(np.eye(DIMENSION, dtype=np.float32))
    expected = np.concatenate([halved(random_vectors(20)), np.zeros((1, DIMENSION), np.float32)])
    expected[[3, 20, 10]] = halved(random_vectors(3, seed=1))
    assert ids == [f"s{i:03}" for i in range(21)]
    np.testing.assert_array_equal(vectors.T, expected)
    assert filled.get("s003").content_hash == "new"
    assert (filled.info().samples, filled.info().deleted) == (21, 2)
    assert filled.verify().ok


def test_metadata_is_updated_without_vectors(filled: Store) -> None:
    before = segment_files(filled)
    old = numbered(2, 4)
    changed = [NewSample.of(sample, metadata={"fresh": 1}, file="b.csv", row=9) for sample in old]
    with filled.writer() as writer:
        assert writer.update_metadata([MetadataChange.of(sample) for sample in changed]) == 2
        with pytest.raises(SampleNotFoundError, match=f"^{re.escape(str(filled.path))}: no sample .* 's999'"):
            writer.update_metadata([MetadataChange.of(old[0]), MetadataChange.of(new_sample("s999"))])
        with pytest.raises(StoreMismatchError, match=f"^{re.escape(str(filled.path))}: sample 's002'"):
            writer.update_metadata([MetadataChange.of(new_sample("s002", content_hash="other"))])
        with pytest.raises(StoreError, match="its file holds half of a surrogate pair"):
            writer.update_metadata([replace(MetadataChange.of(old[1]), file="\ud800")])
        assert writer.update_metadata([]) == 0
    assert plain(filled.get("s002")) == plain(changed[0])
    assert filled.content_hashes(["s003"])["s003"][1] == changed[1].metadata_hash
    assert [sample.id for sample in filled.list(["fresh=1"])] == ["s002", "s003"]
    assert segment_files(filled) == before
    assert filled.verify().ok


def test_metadata_of_many_samples_takes_few_statements(store: Store) -> None:
    """All of it is one transaction, whose statements grow with every 500 samples, not with every sample."""
    samples = [new_sample(f"{i:04}", metadata={"n": i}) for i in range(1001)]
    with store.writer() as writer:
        writer.commit(samples, np.ones((1001, DIMENSION), np.float32))
        statements: list[str] = []

        def note(connection, cursor, statement, parameters, context, executemany):
            statements.append(statement)

        event.listen(store._database._engine, "before_cursor_execute", note)
        changes = [MetadataChange.of(NewSample.of(sample, metadata={"m": sample.row})) for sample in samples]
        assert writer.update_metadata(changes) == 1001
        event.remove(store._database._engine, "before_cursor_execute", note)
    assert len(statements) < 45
    assert store.count(["m = 1"]) == 1001 and store.count(["n = 1"]) == 0
    assert store.verify().ok


def test_altered_spans_of_a_chat_are_noticed(store: Store) -> None:
    """Both where there were some and where there were none."""
    with store.writer() as writer:
        writer.commit([new_sample("chat", target_spans=((3, 9), (12, 20))), new_sample("pair")], random_vectors(2))
    assert store.get("chat").target_spans == ((3, 9), (12, 20)) and store.get("pair").target_spans == ()
    with store._database.writing() as session:
        session.connection().exec_driver_sql("UPDATE samples SET target_spans = '[[3,9]]'")
    for id in ("chat", "pair"):
        with pytest.raises(StoreCorruptError, match=f"the row of sample '{id}' was altered"):
            store.get(id)


def test_list_and_count(filled: Store) -> None:
    assert [s.id for s in filled.list(limit=3, offset=2)] == ["s002", "s003", "s004"]
    assert [s.id for s in filled.list(offset=18)] == ["s018", "s019"]
    assert filled.list(limit=0) == []
    assert [s.id for s in filled.list(["topic=odd", "rank>15"], limit=1)] == ["s017"]
    assert filled.count(["topic=odd", "rank>15"]) == 2
    with pytest.raises(SettingError):
        filled.list(limit=-1)


def test_delete(filled: Store) -> None:
    with pytest.raises(SampleNotFoundError, match="'nope'"):
        filled.delete(["s001", "nope"])
    assert filled.count() == 20
    assert filled.delete(["s001", "s001"]) == 1
    with pytest.raises(SampleNotFoundError):
        filled.get("s001")
    with pytest.raises(SampleNotFoundError):
        filled.delete(["s001"])
    assert filled.delete(where=["topic=even", "rank<4"]) == 2
    assert filled.delete(["s005", "s006"], where=["topic=odd"]) == 1
    assert filled.delete(where=["rank>100"]) == 0
    with pytest.raises(SettingError):
        filled.delete()
    with pytest.raises(FilterError):
        filled.delete(where=["nosuch=1"])
    assert sorted({f"s{i:03}" for i in range(20)} - {s.id for s in filled.list()}) == [
        "s000",
        "s001",
        "s002",
        "s005",
    ]
    with filled.writer() as writer:
        writer.commit([new_sample("s001")], random_vectors(1))
    assert filled.get("s001").row == 1
    assert filled.verify().ok


def test_info(filled: Store) -> None:
    filled.delete(["s000", "s019"])
    info = filled.info()
    assert (info.samples, info.deleted, info.projection_dim) == (18, 2, DIMENSION)
    assert info.indexes == (DerivedInfo("exact", 18, 0, 0),)
    assert (info.traced_parameters, info.traced_tensors) == (20, 2)
    assert [(s.rows, s.live) for s in info.segments] == [(8, 7), (8, 8), (4, 3)]
    assert [s.name for s in info.segments] == [file.name for file in segment_files(filled)]
    assert info.bytes_vectors == sum(file.stat().st_size for file in segment_files(filled))
    assert info.bytes_metadata >= filled.path.joinpath("store.db").stat().st_size > 0
    assert info.metadata_fields == ("nested", "rank", "topic")
    json.dumps(asdict(info))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_by_id(filled: Store, broken: float) -> None:
    vectors = random_vectors(3)
    vectors[1, 7] = broken
    refused(filled, vectors, None, "'n1'.*not finite")


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_must_be_positive(filled: Store, scale: float) -> None:
    refused(filled, random_vectors(3), np.array([1, 1, scale]), "'n2'.*scale")


@pytest.mark.parametrize(("factor", "scale"), [(1e6, 1.0), (1e-9, 1.0), (1.0, 1e30), (0.0, 1.0)])
def test_what_half_precision_cannot_hold_is_refused(filled: Store, factor: float, scale: float) -> None:
    vectors = random_vectors(3)
    vectors[0] *= np.float32(factor)
    refused(filled, vectors, np.array([scale, 1, 1]), "'n0'.*half precision")


@pytest.mark.parametrize(
    "vectors",
    [
        random_vectors(2),
        random_vectors(3, dimension=32),
        random_vectors(3).astype(np.float64),
        random_vectors(3).ravel(),
    ],
)
def test_vectors_of_another_shape_are_refused(filled: Store, vectors: np.ndarray) -> None:
    refused(filled, vectors, None, "3 samples need float32")


def test_scales_of_another_shape_are_refused(filled: Store) -> None:
    refused(filled, random_vectors(3), np.ones(2), "as many scales")


def refused(store: Store, vectors: np.ndarray, scales: np.ndarray | None, message: str) -> None:
    """Committing three samples fails and leaves nothing behind."""
    before = segment_files(store)
    with store.writer() as writer, pytest.raises(StoreError, match=message):
        writer.commit([new_sample(f"n{i}") for i in range(3)], vectors, scales)
    assert segment_files(store) == before
    assert store.count() == 20


def test_samples_that_cannot_be_stored_are_refused_by_id(store: Store) -> None:
    with store.writer() as writer:
        with pytest.raises(StoreError, match=r"'a'.*twice"):
            writer.commit([new_sample("a"), new_sample("b"), new_sample("a")], random_vectors(3))
        with pytest.raises(StoreError, match=r"'a'.*prompt.*surrogate"):
            writer.commit([new_sample("a", prompt="\ud800")], random_vectors(1))
        writer.commit([], np.empty((0, DIMENSION), np.float32))
    assert segment_files(store) == []
    with pytest.raises(StoreError, match=r"'a'.*'when'"):
        new_sample("a", metadata={"when": object()})
    with pytest.raises(StoreError, match="closed"):
        writer.commit([new_sample("a")], random_vectors(1))


def test_large_and_small_vectors_keep_their_scores_through_scales(store: Store) -> None:
    magnitudes = np.array([1e-12, 1e-3, 1.0, 1e6, 1e15], np.float32)
    vectors = random_vectors(5) * magnitudes[:, None]
    scales = np.abs(vectors).max(axis=1)
    with store.writer() as writer:
        writer.commit([new_sample(f"{i}") for i in range(5)], vectors, scales)
    query = random_vectors(1, seed=1)
    with store.snapshot() as snapshot:
        _, scores = snapshot.scores(query)
        best = snapshot.search(query, 5).largest[0]
    np.testing.assert_allclose(scores[0], halved(vectors, scales) @ query[0], rtol=2e-5)
    np.testing.assert_allclose(scores[0], vectors @ query[0], rtol=2e-2)
    assert [hit.score for hit in best] == sorted((float(score) for score in scores[0]), reverse=True)


def test_metadata_beyond_json(store: Store) -> None:
    metadata = {
        "missing": float("nan"),
        "day": datetime.date(2024, 2, 29),
        "price": decimal.Decimal("1.10"),
        "pair": (1, 2),
    }
    with store.writer() as writer:
        writer.commit([new_sample("a", metadata=metadata)], random_vectors(1))
    assert store.get("a").metadata == {
        "missing": None,
        "day": "2024-02-29",
        "price": "1.10",
        "pair": [1, 2],
    }


def test_metadata_hash() -> None:
    assert metadata_hash({"a": 1, "b": [2]}) == metadata_hash({"b": [2], "a": 1})
    assert metadata_hash({"a": 1}) == NewSample(**(plain(new_sample("x")) | {"metadata": {"a": 1}})).metadata_hash
    assert len({metadata_hash({"a": value}) for value in (1, 1.5, "1", True, None, [1], {"1": 1})}) == 7
    assert len(metadata_hash({})) == 32
    for value in (float("inf"), b"bytes", "\udfff", {1: 2}, 10**5000):
        with pytest.raises(StoreError, match="'bad'"):
            metadata_hash({"good": 1, "bad": value})

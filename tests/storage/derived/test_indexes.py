"""Searching with indexes: what they may miss, and everything that they may not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from rapidin.errors import FilterError, IndexNotFoundError, SettingError, StoreEmptyError
from rapidin.records.json_form import to_json
from rapidin.settings import IndexChoice, IndexKind
from rapidin.storage import Store, derived
from rapidin.storage.derived import IvfOptions, index_kinds
from rapidin.storage.derived.indexes import ivf, rabitq
from rapidin.storage.scan import CpuScan, cpu_scan
from rapidin.storage.vectors.codecs import codec_of_bits
from tests.storage.derived.clusters import (
    COUNT,
    KINDS,
    WIDTH,
    clustered,
    clustered_store,
    commit,
    ids,
    oracle,
    recall,
    settings_of,
)
from tests.storage.derived.third_index import NormKind
from tests.storage.stores import new_sample, random_vectors

QUERIES = clustered(40, seed=2)


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> dict[int, Path]:
    """Stores of 16, 4 and 1 bit, with all the indexes that they can have."""
    made = {}
    for bits in (16, 4, 1):
        made[bits] = tmp_path_factory.mktemp("indexed") / "store"
        clustered_store(made[bits], bits, KINDS if bits > 1 else ("ivf",)).close()
    return made


@pytest.fixture
def indexed(templates, path: Path):
    shutil.copytree(templates[16], path)
    with Store.open(path) as store:
        yield store


def test_settings_name_the_kinds_of_indexes_that_there_are() -> None:
    assert get_args(IndexKind) == tuple(index_kinds())
    assert get_args(IndexChoice) == ("auto", "exact", *index_kinds())


@pytest.mark.parametrize(("bits", "kind"), [(16, "ivf"), (16, "rabitq"), (4, "ivf"), (4, "rabitq"), (1, "ivf")])
def test_enough_is_found_and_scores_are_exact(templates, monkeypatch, bits: int, kind: str) -> None:
    monkeypatch.setattr(rabitq, "LEAST_CANDIDATES", 60)
    monkeypatch.setattr(rabitq, "CANDIDATES_PER_RESULT", 6)
    with Store.open(templates[bits]) as store, store.snapshot() as snapshot:
        (info,) = [index for index in store.info().indexes if index.name == kind]
        found = snapshot.search_ends(QUERIES, 10, index=kind).ends
        truth = snapshot.search_ends(QUERIES, 10).ends
        assert recall(found[0], truth[0]) >= 0.9
        assert recall(found[1], truth[1]) >= (0.85 if kind == "ivf" else 0.6)
        assert found[0] == snapshot.search(QUERIES, 10, index=kind).largest
        assert found[1] == snapshot.search(QUERIES, 10, index=kind, largest=False).smallest
        names, scores = snapshot.scores(QUERIES)
        for end in found:
            for query, hits in enumerate(end):
                exact = [scores[query, names.index(hit.id)] for hit in hits]
                np.testing.assert_allclose([hit.score for hit in hits], exact, rtol=1e-4, atol=1e-3)
    if kind == "ivf":
        assert info.parameters["recall"] >= info.parameters["recall_target"] == 0.95
        assert info.parameters["recall_opponents"] >= 0.95
        assert info.parameters["scanned"] < 0.3
        assert 1 <= info.parameters["nprobe"] < info.parameters["nlist"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_takes_from_the_store_is_less(indexed: Store, monkeypatch, kind: str) -> None:
    """Rows whose stored vectors are compared: or an index would be good for nothing."""
    monkeypatch.setattr(rabitq, "LEAST_CANDIDATES", 60)
    monkeypatch.setattr(rabitq, "CANDIDATES_PER_RESULT", 6)
    compared = []
    blocks = cpu_scan._blocks

    def counting(rows, segments, queries):
        for block in blocks(rows, segments, queries):
            if block.segment.codec.bits == 16:
                compared.append(len(block.indexes) * len(queries))
            yield block

    monkeypatch.setattr(cpu_scan, "_blocks", counting)
    with indexed.snapshot() as snapshot:
        snapshot.search(QUERIES, 10, index=kind)
    assert sum(compared) < 0.4 * COUNT * len(QUERIES)


@pytest.mark.parametrize("bits", [16, 4, 1])
def test_reading_all_lists_is_exact(templates, bits: int) -> None:
    with Store.open(templates[bits]) as store, store.snapshot() as snapshot:
        for queries in (QUERIES[:1], QUERIES):
            every = snapshot.search_ends(queries, 7, index="ivf", nprobe=10**6).ends
            truth = snapshot.search_ends(queries, 7).ends
            for found, exact in zip(every, truth, strict=True):
                assert ids(found) == ids(exact)
                for a, b in zip(found, exact, strict=True):
                    np.testing.assert_allclose([h.score for h in a], [h.score for h in b], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("covered", [30, 60])
def test_ties_are_ordered_by_id(path: Path, kind: str, covered: int) -> None:
    """Small integers, so that equal vectors have equal scores, inside and outside the index."""
    random = np.random.default_rng(4)
    few = random.integers(-2, 3, (4, 64)).astype(np.float32)
    vectors = few[random.integers(0, 4, 60)]
    order = random.permutation(60)
    with Store.create(path, settings_of(16, 64)) as store:
        for start in (0, 30):
            with store.writer() as writer:
                names = [new_sample(f"s{i:03}") for i in order[start : start + 30]]
                writer.commit(names, vectors[start : start + 30], np.full(30, 0.5, np.float32))
            if covered == start + 30:
                store.build_index(kind, **({"nlist": 5} if kind == "ivf" else {}))
        queries = random.integers(-2, 3, (3, 64)).astype(np.float32)
        with store.snapshot() as snapshot:
            nprobe = 5 if kind == "ivf" else None
            high, low = snapshot.search_ends(queries, 25, index=kind, nprobe=nprobe).ends
            for found, largest in ((high, True), (low, False)):
                pairs = [[(hit.id, hit.score) for hit in hits] for hits in found]
                assert pairs == oracle(snapshot, queries, 25, largest)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_finds_the_same_alone(indexed: Store, kind: str) -> None:
    with indexed.snapshot() as snapshot:
        together = snapshot.search(QUERIES, 5, index=kind, nprobe=1 if kind == "ivf" else None).largest
        for number in range(len(QUERIES)):
            query = QUERIES[number : number + 1]
            alone = snapshot.search(query, 5, index=kind, nprobe=1 if kind == "ivf" else None).largest
            assert ids(alone) == ids([together[number]])


def test_queries_that_read_together(templates) -> None:
    """Each query is in one group, and a group reads at most twice what its queries need."""
    with Store.open(templates[16]) as store, store.snapshot() as snapshot:
        assert snapshot.chosen_index("ivf") == "ivf"
        index = snapshot._indexes._open("ivf")
        random = np.random.default_rng(0)
        nlist = index.parameters.nlist
        for nprobe in (1, 3, nlist):
            order = np.array([random.permutation(nlist) for _ in range(30)])
            wanted = np.zeros((30, nlist), bool)
            np.put_along_axis(wanted, order[:, :nprobe], True, axis=1)
            groups = list(index._groups(wanted, order[:, 0]))
            assert sorted(np.concatenate(groups)) == list(range(30))
            for members in groups:
                read = int(wanted[members].any(axis=0) @ index._sizes) * len(members)
                assert read <= ivf._WASTE * int((wanted[members] @ index._sizes).sum())
            assert len(groups) < 30
        assert len(groups) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_new_rows_are_found_at_once(indexed: Store, kind: str) -> None:
    far = np.random.default_rng(8).standard_normal((3, WIDTH)).astype(np.float32) * 3
    commit(indexed, COUNT, far)
    for covered in (COUNT, COUNT + 3):
        info = next(index for index in indexed.info().indexes if index.name == kind)
        assert (info.covered, info.uncovered) == (covered, COUNT + 3 - covered)
        with indexed.snapshot() as snapshot:
            high, low = snapshot.search_ends(np.concatenate([far, -far]), 1, index=kind).ends
        assert ids(high)[:3] == [["s0600"], ["s0601"], ["s0602"]] == ids(low)[3:]
        report = indexed.build_index(kind)
        assert (report.trained, report.added) == (False, COUNT + 3 - covered)
        assert (report.covered, report.uncovered) == (COUNT + 3, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_and_replaced_rows_are_not_found(indexed: Store, kind: str) -> None:
    queries = clustered(COUNT, seed=1)[[3, 250, 500, 599]]
    own = ["s0003", "s0250", "s0500", "s0599"]
    with indexed.snapshot() as before:
        best = before.search(queries, 3, index=kind).largest
        assert [found[0] for found in ids(best)] == own
        indexed.delete(own[:3])
        commit(indexed, 599, -queries[3:], content_hash="new")
        assert before.search(queries, 3, index=kind).largest == best
    with indexed.snapshot() as after:
        found = ids(after.search(queries, 3, index=kind).largest)
        assert not {id for of_query in found for id in of_query} & set(own)
        assert ids(after.search(-queries[3:], 1, index=kind).largest) == [["s0599"]]


@pytest.mark.parametrize("index", ["auto", "exact", *KINDS])
def test_filtered_searches_are_exact(indexed: Store, index: str) -> None:
    with indexed.snapshot() as snapshot:
        assert snapshot.chosen_index(index, ("third=1",)) == "exact"
        assert snapshot.search_ends(QUERIES, 50, ("third=1",), index).index == "exact"
        found = snapshot.search_ends(QUERIES, 50, ("third=1",), index).ends
        assert found == snapshot.search_ends(QUERIES, 50, ("third=1",)).ends
        assert all(hit.metadata["third"] == 1 for end in found for hits in end for hit in hits)
        with pytest.raises(FilterError):
            snapshot.search(QUERIES, 5, ("no_such_field=1",), index=index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2 * COUNT, 10**9])
def test_any_k(indexed: Store, kind: str, k: int) -> None:
    with indexed.snapshot() as snapshot:
        found = snapshot.search(QUERIES[:2], k, index=kind, nprobe=10**9 if kind == "ivf" else None).largest
        assert [len(hits) for hits in found] == [min(k, COUNT)] * 2
        assert snapshot.search(QUERIES[:0], k, index=kind).largest == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_of_which_everything_was_deleted(indexed: Store, kind: str) -> None:
    indexed.delete(where=("tokens>0",))
    with indexed.snapshot() as snapshot:
        assert snapshot.search_ends(QUERIES[:2], 3, index=kind).ends == ([[], []], [[], []])
        assert snapshot.chosen_index("auto") == "exact"
    with pytest.raises(StoreEmptyError, match="no samples"):
        indexed.build_index(kind)
    assert indexed.verify().ok


def test_vectors_of_very_different_lengths(path: Path) -> None:
    """Scales far from 1, so that scores of the one-bit codes are those of the store."""
    vectors = clustered(300, seed=3)
    scales = np.exp(np.random.default_rng(3).uniform(-9, 9, 300)).astype(np.float32)
    for bits in (16, 4):
        with Store.create(path / str(bits), settings_of(bits)) as store:
            commit(store, 0, vectors * scales[:, None], scales)
            store.build_index("rabitq")
            store.build_index("ivf")
            with store.snapshot() as snapshot:
                exact = snapshot.search(QUERIES, 1).largest
                for kind in KINDS:
                    found = snapshot.search(QUERIES, 1, index=kind).largest
                    assert np.mean(np.array(ids(found)) == np.array(ids(exact))) > 0.9, kind


class TestAuto:
    def test_without_an_index(self, filled: Store) -> None:
        with filled.snapshot() as snapshot:
            assert snapshot.chosen_index() == "exact"

    def test_small_stores_take_one_bit(self, indexed: Store, monkeypatch) -> None:
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index() == "rabitq"
            few = QUERIES[: rabitq.MOST_QUERIES]
            assert snapshot.search(few, 3, index="auto").largest == snapshot.search(few, 3, index="rabitq").largest
        monkeypatch.setattr(ivf, "MANY_ROWS", COUNT)
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index() == "ivf"
        indexed.drop_index("ivf")
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index() == "rabitq"

    def test_many_queries_are_compared_exactly(self, indexed: Store, monkeypatch) -> None:
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index(queries=rabitq.MOST_QUERIES) == "rabitq"
            assert snapshot.chosen_index(queries=1000) == "exact"
            assert snapshot.search(QUERIES, 3, index="auto").largest == snapshot.search(QUERIES, 3).largest
        indexed.drop_index("rabitq")
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index(queries=1) == "ivf"
            assert snapshot.chosen_index(queries=1000) == "exact"

    def test_a_third_kind_is_asked_like_the_others(self, indexed: Store, monkeypatch) -> None:
        """It goes before them by its priority, and serves a single query at a time."""
        monkeypatch.setitem(derived.KINDS, "norms", NormKind())
        indexed.build_derived("norms", IvfOptions())
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index() == "norms"
            assert snapshot.chosen_index(queries=2) == "rabitq"
            found, truth = snapshot.search(QUERIES, 5, index="norms"), snapshot.search(QUERIES, 5)
            assert ids(found.largest) == ids(truth.largest)
            with pytest.raises(SettingError, match="--nprobe is of index 'ivf' only: leave it out with 'norms'"):
                snapshot.chosen_index("norms", nprobe=2)
        assert [info.name for info in indexed.info().indexes] == ["exact", "ivf", "norms", "rabitq"]
        indexed.drop_derived("norms")
        with (
            indexed.snapshot() as snapshot,
            pytest.raises(IndexNotFoundError, match=r"build it with 'rapidin index .* --type norms'"),
        ):
            snapshot.chosen_index("norms")

    def test_lists_that_are_asked_for(self, indexed: Store) -> None:
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index("auto", nprobe=2) == "ivf"
        indexed.drop_index("ivf")
        with indexed.snapshot() as snapshot, pytest.raises(IndexNotFoundError, match="there is no index 'ivf'"):
            snapshot.chosen_index("auto", nprobe=2)

    def test_at_least_half_must_be_covered(self, indexed: Store) -> None:
        commit(indexed, COUNT, clustered(COUNT, seed=5))
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index() == "rabitq"
        commit(indexed, 2 * COUNT, clustered(1, seed=6))
        with indexed.snapshot() as snapshot:
            assert snapshot.chosen_index() == "exact"
            assert snapshot.chosen_index("rabitq") == "rabitq"

    @pytest.mark.parametrize(
        ("options", "taken"),
        [
            ({"nlist": 60, "nprobe": 1}, False),
            ({"nlist": 60, "nprobe": 1, "recall": 0.05}, False),
            ({"nlist": 60, "recall": 0.3}, True),
            ({"nlist": 12}, True),
        ],
    )
    def test_lists_that_miss_much_are_left_out(self, path: Path, options: dict, taken: bool) -> None:
        """Unless somebody asked for so little; a number of lists alone is no such wish."""
        with clustered_store(path) as store:
            report = store.build_index("ivf", **options)
            assert report.parameters["scanned"] < 0.4
            assert (report.advice is None) == taken
            assert store.info().indexes[1].advice == report.advice
            if not taken:
                assert report.parameters["recall"] < 0.9
                assert "misses too much" in report.advice
            with store.snapshot() as snapshot:
                assert snapshot.chosen_index() == ("ivf" if taken else "exact")
                assert snapshot.chosen_index("ivf") == "ivf"

    def test_lists_that_save_nothing_are_left_out(self, path: Path) -> None:
        with Store.create(path, settings_of(16)) as store:
            commit(store, 0, np.random.default_rng(0).standard_normal((400, WIDTH)).astype(np.float32))
            report = store.build_index("ivf")
            assert report.parameters["scanned"] > 0.5
            assert "hardly any clusters" in report.advice
            with store.snapshot() as snapshot:
                assert snapshot.chosen_index() == "exact"
                assert snapshot.chosen_index("ivf") == "ivf"


@pytest.mark.parametrize(
    ("index", "nprobe", "error", "message"),
    [
        ("flat", None, SettingError, "'flat' is unknown: choose from auto, exact, ivf, rabitq"),
        ("ivf", None, IndexNotFoundError, "rapidin index .* --type ivf', or search with --exact"),
        ("rabitq", None, IndexNotFoundError, "rapidin index .* --type rabitq'"),
        ("ivf", 0, SettingError, "give at least 1"),
        ("exact", 3, SettingError, "leave it out with 'exact'"),
        ("rabitq", 3, SettingError, "leave it out with 'rabitq'"),
    ],
)
def test_a_way_that_there_is_not(filled: Store, index: str, nprobe: int | None, error: type, message: str) -> None:
    with filled.snapshot() as snapshot:
        for where in ((), ("topic=even",)):
            with pytest.raises(error, match=message):
                snapshot.search(np.ones((1, 64), np.float32), 1, where, index=index, nprobe=nprobe)


def test_a_snapshot_sees_its_own_indexes(path: Path) -> None:
    with clustered_store(path) as store, store.snapshot() as before:
        store.build_index("ivf")
        assert before.chosen_index() == "exact"
        with pytest.raises(IndexNotFoundError, match="no index 'ivf'"):
            before.chosen_index("ivf")
        with store.snapshot() as after:
            assert after.chosen_index("ivf") == "ivf"
            found = after.search(QUERIES, 5, index="ivf").largest
            store.build_index("ivf", retrain=True, nlist=3, nprobe=1)
            store.drop_index("ivf")
            assert after.search(QUERIES, 5, index="ivf").largest == found


def test_what_info_says(indexed: Store) -> None:
    indexed.delete(["s0000"])
    exact, lists, bits = to_json(indexed.info())["indexes"]
    assert exact == {
        **{"name": "exact", "covered": COUNT - 1, "uncovered": 0, "bytes": 0},
        **{"parameters": {}, "advice": None},
    }
    sizes = {"ivf": 0, "rabitq": 0}
    for file in (indexed.path / "indexes").iterdir():
        sizes["rabitq" if file.suffix == ".faiss" else "ivf"] += file.stat().st_size
    for info in (lists, bits):
        assert (info["covered"], info["uncovered"], info["advice"]) == (COUNT - 1, 0, None)
        assert info["bytes"] == sizes[info["name"]] > 0
    assert lists["parameters"]["nlist"] >= 1


@pytest.mark.parametrize("bits", [16, 4, 1])
@pytest.mark.parametrize("wanted", [[0], [39], [1, 5, 6, 30], [0, 39], list(range(3, 38, 2)), list(range(7, 31))])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_scattered_rows_score_as_all_do(
    wide: dict[int, Path], bits: int, wanted: list[int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are compared with all that lie between them or gathered, in one piece or several."""
    queries = random_vectors(count, seed=5, dimension=4096)
    monkeypatch.setattr(cpu_scan, "SCANNED_BYTES", 4 * codec_of_bits(bits).row_bytes(4096))
    with Store.open(wide[bits]) as store, store.snapshot() as snapshot:
        every = CpuScan().scores(queries, snapshot._rows, snapshot._segment)
        some = CpuScan().scores(queries, snapshot._rows.chosen(np.array(wanted)), snapshot._segment)
        np.testing.assert_array_equal(some, every[:, wanted])


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> dict[int, Path]:
    """Stores of 40 vectors of 4,096 numbers, by bits."""
    made = {}
    for bits in (16, 4, 1):
        made[bits] = tmp_path_factory.mktemp("wide") / "store"
        with Store.create(made[bits], settings_of(bits, 4096)) as store:
            commit(store, 0, random_vectors(40, dimension=4096))
    return made


@pytest.mark.parametrize("nprobe", [None, 1])
@pytest.mark.parametrize("k", [1, 10, 100, 300, 5000])
def test_as_many_come_back_as_were_asked_for(templates, k: int, nprobe: int | None) -> None:
    with Store.open(templates[16]) as store, store.snapshot() as snapshot:
        high, low = snapshot.search_ends(QUERIES, k, index="ivf", nprobe=nprobe).ends
        truth = snapshot.search_ends(QUERIES, k).ends
    assert {len(hits) for hits in (*high, *low)} == {min(k, store.count())}
    if nprobe is None:
        assert recall(high, truth[0]) >= 0.9

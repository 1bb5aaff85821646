"""The curvature as derived data: what is kept, extended, refused and advised."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import DerivedNotFoundError, SettingError, StoreError, StoreFormatError, StoreLockedError
from rapidin.settings import CURVATURE_DAMPING, ProbeShape
from rapidin.storage import (
    ComputedProbes,
    CurvatureOptions,
    ProbeRequest,
    Store,
    export_vectors,
    import_vectors,
    recode,
)
from rapidin.storage.derived import CURVATURE, derived_building
from rapidin.storage.derived.curvature.probe_file import ProbeArrays, StoredCurvature
from tests.storage.derived.clusters import WIDTH, clustered, commit, settings_of
from tests.storage.derived.random_probes import random_probe, random_probes
from tests.storage.stores import flip_byte


class Counting:
    """Computes random probes and counts them."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.computed: list[ProbeRequest] = []
        self.dies_after = dies_after

    def __call__(self, requests: Sequence[ProbeRequest]) -> Iterator[ComputedProbes]:
        for batch in random_probes(requests):
            if self.dies_after is not None and len(self.computed) >= self.dies_after:
                raise KeyboardInterrupt
            self.computed += [requests[row] for row in batch.rows]
            yield batch


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.create(path, settings_of(16)) as store:
        commit(store, 0, clustered(150, seed=1))
        yield store


def build(store: Store, compute=random_probes, **options):
    return store.build_derived("curvature", CurvatureOptions(compute=compute, **options))


def loaded(store: Store):
    with store.snapshot() as snapshot:
        return snapshot.curvature()


def test_probes_are_kept_with_their_inner_products(store: Store) -> None:
    report = build(store, probes=300)
    assert report.parameters["probes"] == 300
    assert report.parameters["tokens"] == 900
    found = loaded(store)
    with store.snapshot() as snapshot:
        facts, record = snapshot.derived("curvature")
        arrays = CURVATURE._arrays(facts, record)
    expected = np.stack([random_probe(int(key)) for key in arrays.keys]) / np.sqrt(900)
    kept = found.decoded(0, 300)
    largest = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(kept - expected) <= 0.51 * largest / 127).all()
    np.testing.assert_allclose(found.gram, kept.astype(np.float64) @ kept.T, rtol=1e-4, atol=1e-5)


def test_missing_probes_are_computed_and_the_result_is_that_of_one_build(store: Store) -> None:
    first, second = Counting(), Counting()
    build(store, first, probes=100)
    commit(store, 150, clustered(150, seed=2))
    before = loaded(store)
    report = build(store, second, probes=200)
    assert report.parameters["probes"] == 200
    assert not {one.key for one in first.computed} & {one.key for one in second.computed}
    assert 100 <= len(second.computed) < 200
    after = loaded(store)
    assert after.version != before.version
    store.drop_derived("curvature")
    build(store, probes=200)
    again = loaded(store)
    np.testing.assert_array_equal(again.codes, after.codes)
    np.testing.assert_allclose(again.gram, after.gram, rtol=1e-4, atol=1e-6)


def test_older_probes_are_not_lost_when_a_store_has_grown_much(store: Store) -> None:
    build(store, probes=600)
    commit(store, 150, clustered(2_000, seed=2))
    second = Counting()
    report = build(store, second, probes=5_000)
    assert (report.parameters["probes"], report.advice) == (5_000, None)
    found = loaded(store)
    store.drop_derived("curvature")
    build(store, probes=5_000)
    np.testing.assert_array_equal(found.codes, loaded(store).codes)


def test_a_build_that_was_killed_goes_on_with_what_was_computed(store: Store) -> None:
    first, second = Counting(dies_after=400), Counting()
    with pytest.raises(KeyboardInterrupt):
        build(store, first, probes=600)
    assert "256 of 600 probes were computed" in store.info().derived[0].advice
    assert len(loaded(store).codes) == 256
    build(store, second)
    assert len(second.computed) == 600 - 256
    assert store.info().derived[0].advice is None
    assert store.verify().ok


def test_another_damping_costs_nothing_and_is_another_version(store: Store) -> None:
    build(store, probes=50)
    before = loaded(store)
    report = build(store, None, damping=0.5)
    after = loaded(store)
    assert (report.parameters["damping"], report.parameters["wanted"]) == (0.5, 50)
    assert (after.damping, after.version != before.version) == (0.5, True)
    np.testing.assert_array_equal(after.codes, before.codes)
    assert (before.damping, before.damping_of("loss")) == (None, CURVATURE_DAMPING["loss"])
    assert after.damping_of("log-odds") == 0.5
    build(store, None, damping=0.7)
    assert loaded(store).version not in (before.version, after.version)
    build(store, None, damping=0.5)
    assert loaded(store).version == after.version
    build(store, None)
    assert loaded(store).damping == 0.5
    report = build(store, None, damping="default")
    assert (report.parameters["damping"], loaded(store).version) == (None, before.version)
    build(store, None)
    assert loaded(store).damping is None


def test_a_snapshot_finds_what_probes_were_drawn_from(store: Store) -> None:
    computing = Counting()
    build(store, computing, probes=600)
    requests = {one.key: one for one in computing.computed}
    keys = loaded(store).keys
    with store.snapshot() as snapshot:
        found = snapshot.probed(keys)
    assert len(found) == len(keys) == 600
    for key, one in zip(keys.tolist(), found, strict=True):
        assert one is not None
        assert (one[0].id, one[1]) == (requests[key].id, requests[key].draw)
    store.delete(["s0003"])
    with store.snapshot() as snapshot:
        after = snapshot.probed(keys)
    gone = [requests[key].id for key, one in zip(keys.tolist(), after, strict=True) if one is None]
    assert set(gone) == {"s0003"}
    assert len(gone) == sum(one.id == "s0003" for one in requests.values())


def test_probes_of_deleted_samples_leave_when_it_is_extended(store: Store) -> None:
    build(store, probes=600)
    store.delete([f"s{number:04}" for number in range(100)])
    store.compact()
    assert len(loaded(store).codes) == 600
    assert build(store, None).parameters["probes"] == 200
    assert len(loaded(store).codes) == 200


def test_growth_by_half_is_told(store: Store) -> None:
    build(store, probes=100)
    commit(store, 150, clustered(74, seed=2))
    assert store.info().derived[0].advice is None
    commit(store, 300, clustered(1, seed=3))
    advice = store.info().derived[0].advice
    assert "150 samples, and it holds 225" in advice
    assert f"'rapidin curvature {store.path}'" in advice


def test_probes_that_cannot_be_used_are_left_out(store: Store) -> None:
    def some(requests: Sequence[ProbeRequest]) -> Iterator[ComputedProbes]:
        for batch in random_probes(requests):
            rows = [n for n, row in enumerate(batch.rows) if requests[row].key % 5]
            yield ComputedProbes([batch.rows[n] for n in rows], batch.vectors[rows], [3] * len(rows))

    report = build(store, some, probes=100)
    told = report.parameters
    assert told["probes"] + told["unusable"] == 100
    assert told["unusable"] > 0
    assert report.advice is None
    with pytest.raises(SettingError, match="certain of every target token"):
        store.build_derived("curvature", CurvatureOptions(compute=lambda _: iter(())), retrain=True)
    assert len(loaded(store).codes) == told["probes"]


def test_a_writer_computes_it_under_the_lock_that_it_holds(store: Store) -> None:
    with store.writer() as writer:
        with pytest.raises(StoreLockedError):
            build(store, probes=30)
        report = writer.build_derived("curvature", CurvatureOptions(30, None, random_probes))
        (file,) = (store.path / "curvature").iterdir()
        writer.build_derived("curvature", CurvatureOptions(40, None, random_probes))
        assert not file.exists()
        with pytest.raises(SettingError, match="derived data 'curve' is unknown: choose from"):
            writer.build_derived("curve")
    assert (report.parameters["probes"], len(loaded(store).codes)) == (30, 40)
    with pytest.raises(StoreError, match="this writer is closed"):
        writer.build_derived("curvature")


def test_the_state_tells_what_is_missing(store: Store) -> None:
    def missing(*asked: int | None) -> tuple[int, int]:
        state = store.curvature_state(*asked)
        return state.probes, state.missing

    assert [missing(), missing(20), missing(None, 10)] == [(0, 600), (0, 20), (0, 640)]
    assert store.curvature_state().version is None
    with pytest.raises(KeyboardInterrupt):
        build(store, Counting(dies_after=400))
    assert [missing(), missing(300), missing(100), missing(9999, 10)] == [
        (256, 344),
        (256, 44),
        (256, 0),
        (256, 384),
    ]
    build(store)
    commit(store, 150, clustered(75, seed=2))
    state = store.curvature_state()
    assert (state.probes, state.missing, state.missing_bytes) == (600, 0, 0)
    assert state.version == loaded(store).version
    assert "150 samples, and it holds 225" in str(state.advice)
    assert missing(9999) == (600, 300)


def test_a_damaged_curvature_is_missing_and_a_newer_one_is_not(store: Store) -> None:
    build(store, probes=20)
    with store.snapshot() as snapshot:
        _, record = snapshot.derived("curvature")

    def state_of(**changes):
        changed = replace(record, **{"parameters": record.parameters} | changes)
        with store._database.writing() as session:
            derived_building.derived_records.update_derived(session, changed)
        return store.curvature_state(20)

    assert state_of().missing == 0
    assert state_of(parameters=record.parameters.replace("20", "19")).missing == 20  # its checksum is wrong
    newer = json.dumps(json.loads(record.parameters) | {"format": 2})
    signed = derived_building.derived_records.with_parameters(record, newer)
    state = state_of(parameters=newer, checksum=signed.checksum)
    assert (state.probes, state.version, state.missing) == (0, None, 0)
    assert "upgrade rapidin" in str(state.advice)
    state_of(checksum=record.checksum)
    (file,) = (store.path / "curvature").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert store.curvature_state().missing == 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 0}, "--probes 0 cannot be used"),
        ({"damping": 0.0}, "--damping 0.0 cannot be used: give a positive number, or 'default'"),
        ({"damping": "much"}, "--damping much cannot be used"),
        ({"damping": float("nan")}, "--damping nan cannot be used"),
        ({"compute": None}, "probes have to be computed, which needs the store's model"),
    ],
)
def test_what_cannot_be_used_is_refused(store: Store, options, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build(store, **{"compute": random_probes, **options})
    assert store.info().derived == ()


def test_a_store_without_one_says_so(store: Store) -> None:
    with store.snapshot() as snapshot:
        assert snapshot.curvature_version() is None
        with pytest.raises(DerivedNotFoundError, match="rapidin curvature"):
            snapshot.curvature()


def test_a_newer_rapidins_curvature_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    build(store, probes=10)
    with store.snapshot() as snapshot:
        _, record = snapshot.derived("curvature")
    newer = replace(record, parameters=json.dumps(json.loads(record.parameters) | {"format": 2}))
    newer = derived_building.derived_records.with_parameters(newer, newer.parameters)
    with store._database.writing() as session:
        derived_building.derived_records.update_derived(session, newer)
    with store.snapshot() as snapshot, pytest.raises(StoreFormatError, match="upgrade rapidin"):
        snapshot.curvature_version()
    assert "upgrade rapidin" in store.info().derived[0].advice
    assert WIDTH == 256


def test_every_block_of_a_probe_has_its_own_scale() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 2_500)).astype(np.float32)
    vectors[:, :1_024] *= 1_000
    vectors[:, 2_048:] = 0
    arrays = ProbeArrays.none(ProbeShape(2_500, 1)).joined(
        np.arange(3, dtype=np.uint64), vectors, np.ones(3, np.int64)
    )
    assert arrays.scales.shape == (3, 3)
    stored = StoredCurvature("v", 0.1, arrays.keys, 1.0, arrays.codes, arrays.scales, arrays.gram)
    decoded = stored.decoded(0, 3)
    assert np.abs(decoded[:, :1_024] - vectors[:, :1_024]).max() < 20
    assert np.abs(decoded[:, 1_024:] - vectors[:, 1_024:]).max() < 0.02
    np.testing.assert_allclose(arrays.gram, decoded @ decoded.T, rtol=1e-5)


def test_a_copy_in_other_bits_has_the_same_curvature(store: Store, tmp_path: Path) -> None:
    build(store, probes=300, damping=0.5)
    store.delete(["s0003"])
    assert recode(store.path, tmp_path / "copy", 4).notes == ()
    with Store.open(tmp_path / "copy") as copy:
        before, after = loaded(store), loaded(copy)
        assert (after.version, after.damping) == (before.version, 0.5)
        np.testing.assert_array_equal(after.codes, before.codes)
        assert copy.verify().ok
        counting = Counting()
        build(store, counting)
        again = Counting()
        build(copy, again)
        assert again.computed == counting.computed != []
        assert loaded(copy).version == loaded(store).version


@pytest.mark.parametrize("damage", ["file", "row"])
def test_a_damaged_curvature_stays_behind(store: Store, tmp_path: Path, damage: str) -> None:
    build(store, probes=100)
    if damage == "file":
        (file,) = (store.path / "curvature").iterdir()
        flip_byte(file, file.stat().st_size // 2)
    else:
        with closing(sqlite3.connect(store.path / "store.db")) as database, database:
            database.execute("UPDATE derived SET parameters = replace(parameters, '100', '101')")
    with Store.open(store.path) as damaged:
        (note,) = recode(damaged.path, tmp_path / "copy", 4).notes
    assert f"the curvature is not in {tmp_path / 'copy'}" in note
    with Store.open(tmp_path / "copy") as copy:
        assert copy.info().derived == ()
        assert copy.verify().ok


@pytest.mark.parametrize("format", ["safetensors", "numpy"])
def test_an_export_takes_the_curvature_into_a_new_store(store: Store, tmp_path: Path, format) -> None:
    build(store, probes=300, damping=0.5)
    store.delete(["s0003"])
    assert export_vectors(store, tmp_path / "export", format=format).notes == ()
    import_vectors(tmp_path / "new", tmp_path / "export", bits=4)
    with Store.open(tmp_path / "new") as new:
        assert loaded(new).version == loaded(store).version
        assert new.verify().ok
    assert import_vectors(tmp_path / "new", tmp_path / "export").skipped == 149
    again = tmp_path / "again"
    assert export_vectors(Store.open(tmp_path / "new"), again, format=format).notes == ()
    shutil.rmtree(tmp_path / "new")
    import_vectors(tmp_path / "new", again)
    with Store.open(tmp_path / "new") as new:
        assert loaded(new).version == loaded(store).version


def test_an_export_of_some_samples_has_no_curvature(store: Store, tmp_path: Path) -> None:
    build(store, probes=100)
    (note,) = export_vectors(store, tmp_path / "export", ["id<s0100"]).notes
    assert "the curvature is not in" in note
    import_vectors(tmp_path / "new", tmp_path / "export")
    with Store.open(tmp_path / "new") as new:
        assert new.info().derived == ()


def test_a_store_with_other_samples_or_a_curvature_keeps_its_own(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(store, probes=100)
    export_vectors(store, tmp_path / "export")
    with Store.create(tmp_path / "other", settings_of(16)) as other:
        commit(other, 500, clustered(10, seed=3))
        import_vectors(other.path, tmp_path / "export")
        assert other.info().derived == ()
        assert "was not taken, because the store has other samples" in caplog.text
        build(other, probes=50)
        version = loaded(other).version
        import_vectors(other.path, tmp_path / "export")
        assert loaded(other).version == version
        assert "because the store has one of its own" in caplog.text
        assert other.verify().ok


def flip(export: Path) -> None:
    (file,) = (export / "curvature").iterdir()
    flip_byte(file, file.stat().st_size // 2)


def link(export: Path) -> None:
    (file,) = (export / "curvature").iterdir()
    file.rename(export.parent / "elsewhere")
    file.symlink_to(export.parent / "elsewhere")


def remove(export: Path) -> None:
    shutil.rmtree(export / "curvature")


def forget(export: Path) -> None:
    manifest = json.loads((export / "store.json").read_text())
    (export / "store.json").write_text(json.dumps({**manifest, "curvature": None}))


def add(export: Path) -> None:
    (export / "curvature" / "more.txt").write_text("mine")


def lead_out(export: Path) -> None:
    manifest = json.loads((export / "store.json").read_text())
    manifest["curvature"]["name"] = "../vectors-00000.safetensors"
    (export / "store.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "the curvature of the export cannot be read; export it again"),
        (link, "not a regular file"),
        (remove, "the curvature of the export cannot be read"),
        (forget, "an export has no such file|not a regular file"),
        (add, "more.txt: an export has no such file; remove it"),
        (lead_out, "curvature.name cannot be used"),
    ],
)
def test_a_damaged_curvature_of_an_export_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, damage, message: str
) -> None:
    build(store, probes=100)
    export_vectors(store, tmp_path / "export")
    damage(tmp_path / "export")
    with pytest.raises(StoreError, match=message):
        import_vectors(tmp_path / "new", tmp_path / "export")
    assert not (tmp_path / "new").exists()

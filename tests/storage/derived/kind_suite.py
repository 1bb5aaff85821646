"""What every kind of derived data has to pass: subclass `KindSuite`, name the kind, and pytest runs all of it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidin.errors import DerivedNotFoundError, IndexNotFoundError, SettingError, StoreEmptyError
from rapidin.records import DerivedInfo
from rapidin.storage import Store, export_vectors, recode
from rapidin.storage.derived import KINDS, CurvatureOptions, DerivedKind, IvfOptions
from tests.storage.derived.clusters import clustered, commit, settings_of
from tests.storage.derived.random_probes import random_probes
from tests.storage.stores import flip_byte, run_python

STEPS = [
    "sync_file",
    "publish",
    "sync_directory",
    "insert_derived",
    "insert_parts",
    "record_step",
    "remove_garbage",
]
MOMENTS = [(step, moment) for step in STEPS for moment in ("before", "after")]

CHILDREN = """
import json, os, signal, sys
from rapidin.storage import Store
from rapidin.storage.derived import KINDS, derived_building, derived_records
from rapidin.storage.maintenance import garbage
from rapidin.storage.vectors import segment_writing
from tests.storage.derived.kind_suite import options_of
from tests.storage.derived.mean_kinds import MEANS
from tests.storage.derived.third_index import NormKind
import faiss

KINDS.update((kind.name, kind) for kind in (*MEANS, NormKind()))

def die_around(step, moment):
    home = next(one for one in (segment_writing, derived_records, derived_building, garbage) if step in vars(one))
    original = getattr(home, step)
    def dying(*arguments, **named):
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(home, step, dying)

statuses = []
for path, name, step, moment in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        with Store.open(path) as store:
            die_around(step, moment)
            store.build_derived(name, options_of(name))
        os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])
print(json.dumps(statuses))
"""


def options_of(name: str) -> object:
    if name == "curvature":
        return CurvatureOptions(compute=random_probes)
    return IvfOptions() if KINDS[name].serves_searches else None


class KindSuite:
    """Tests of one kind of derived data, on a store of three segments of 40."""

    KIND: DerivedKind

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch) -> None:
        monkeypatch.setitem(KINDS, self.KIND.name, self.KIND)

    @pytest.fixture(scope="class")
    @classmethod
    def template(cls, tmp_path_factory) -> Path:
        path = tmp_path_factory.mktemp("template") / "store"
        with Store.create(path, settings_of(16)) as store:
            vectors = clustered(120, seed=1)
            for start in range(0, 120, 40):
                commit(store, start, vectors[start : start + 40])
        return path

    @pytest.fixture
    def store(self, template: Path, path: Path) -> Iterator[Store]:
        shutil.copytree(template, path)
        with Store.open(path) as store:
            yield store

    @pytest.fixture
    def built(self, store: Store) -> Store:
        self.build(store)
        return store

    def build(self, store: Store, retrain: bool = False):
        return store.build_derived(self.KIND.name, options_of(self.KIND.name), retrain=retrain)

    def info(self, store: Store) -> DerivedInfo | None:
        info = store.info()
        found = [one for one in (*info.indexes[1:], *info.derived) if one.name == self.KIND.name]
        return found[0] if found else None

    def files(self, store: Store) -> list[Path]:
        folder = store.path / self.KIND.folder
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def test_it_covers_everything_once_built(self, store: Store) -> None:
        assert self.info(store) is None and self.files(store) == []
        report = self.build(store)
        assert (report.name, report.trained, report.added, report.covered) == (self.KIND.name, True, 120, 120)
        info = self.info(store)
        assert (info.covered, info.uncovered) == (120, 0)
        assert info.bytes == sum(file.stat().st_size for file in self.files(store)) == report.bytes > 0
        assert {file.suffix for file in self.files(store)} <= self.KIND.suffixes
        assert (info in store.info().indexes) is self.KIND.serves_searches
        assert store.verify().ok

    def test_an_empty_store_has_none(self, path: Path) -> None:
        with Store.create(path, settings_of(16)) as store, pytest.raises(StoreEmptyError, match="no samples"):
            self.build(store)

    def test_it_is_extended_to_new_segments(self, built: Store) -> None:
        commit(built, 120, clustered(10, seed=2))
        assert (self.info(built).covered, self.info(built).uncovered) == (120, 10)
        report = self.build(built)
        assert (report.trained, report.added, report.repaired, report.covered) == (False, 10, 0, 130)
        assert built.verify().ok
        again = self.build(built)
        assert (again.trained, again.added) == (False, 0)

    @pytest.mark.parametrize("damage", ["altered", "missing", "shorter"])
    def test_damage_to_any_file_is_reported_and_repaired(self, built: Store, damage: str) -> None:
        for number in range(len(self.files(built))):
            file = self.files(built)[number]
            if damage == "altered":
                flip_byte(file, -3)
            elif damage == "missing":
                file.unlink()
            else:
                file.write_bytes(file.read_bytes()[:-1])
            # Opened again, as another process would: this one has compared the file's checksum.
            with Store.open(built.path) as store:
                report = store.verify()
                assert any(file.name in problem for problem in report.problems), report.problems
                assert damage == "altered" or "missing or damaged" in self.info(store).advice
                assert self.build(store).repaired > 0
                assert store.verify().ok
                assert self.info(store).uncovered == 0

    def test_an_altered_row_is_reported_and_repaired(self, built: Store) -> None:
        with built._database.writing() as session:
            session.connection().exec_driver_sql("UPDATE derived SET parameters = parameters || ' '")
        assert any(self.KIND.title in problem for problem in built.verify().problems)
        assert "was altered" in self.info(built).advice
        assert self.build(built).trained
        assert built.verify().ok

    def test_a_part_for_another_segment_is_reported_and_repaired(self, built: Store) -> None:
        with built._database.writing() as session:
            session.connection().exec_driver_sql("UPDATE derived_parts SET rows = 7 WHERE segment_id = 2")
        assert any(self.KIND.title in problem for problem in built.verify().problems)
        report = self.build(built)
        assert (report.repaired, report.covered) == (1, 120)
        assert built.verify().ok

    def test_files_go_when_it_is_dropped_but_not_while_somebody_reads(self, built: Store) -> None:
        before = self.files(built)
        with built.snapshot():
            built.drop_derived(self.KIND.name)
            assert self.files(built) == before
        with built.writer():
            assert self.files(built) == []
        assert self.info(built) is None
        with pytest.raises(DerivedNotFoundError, match=self.KIND.title) as refused:
            built.drop_derived(self.KIND.name)
        assert isinstance(refused.value, IndexNotFoundError) is self.KIND.serves_searches

    def test_a_snapshot_reads_what_it_was_opened_with(self, store: Store) -> None:
        with store.snapshot() as before:
            self.build(store)
            assert before.derived(self.KIND.name) is None
        with store.snapshot() as snapshot:
            self.build(store, retrain=True)
            facts, record = snapshot.derived(self.KIND.name)
            self.KIND.check(facts, record)
            for part in record.parts:
                self.KIND.check_part(facts, record, part)

    def test_files_go_when_it_is_replaced_but_not_while_somebody_reads(self, built: Store) -> None:
        before = self.files(built)
        with built.snapshot():
            self.build(built, retrain=True)
            assert set(before) < set(self.files(built))
        with built.writer():
            assert len(self.files(built)) == len(before) and not set(before) & set(self.files(built))
        assert built.verify().ok

    def test_coverage_after_a_compaction(self, built: Store) -> None:
        built.delete([f"s{number:04}" for number in range(10)])
        report = built.compact()
        left = 0 if self.KIND.follows_samples else 110
        assert report.uncovered.get(self.KIND.name, 0) == left
        command = self.KIND.command(built.path)
        note = f"{self.KIND.title} no longer covers 110 samples: extend it with '{command}'"
        assert report.notes == (() if self.KIND.follows_samples else (note,))
        assert (self.info(built).covered, self.info(built).uncovered) == (110 - left, left)
        assert built.verify().ok
        assert self.build(built).covered == 110
        assert built.verify().ok

    def test_a_rapidin_that_does_not_know_the_kind_leaves_it_alone(self, built: Store, monkeypatch) -> None:
        before = self.files(built)
        with monkeypatch.context() as older:
            older.delitem(KINDS, self.KIND.name)
            (problem,) = built.verify().problems
            assert f"{self.KIND.name!r} is unknown here" in problem and "upgrade rapidin" in problem
            info = self.info(built)
            assert (info.covered, info.parameters) == (120, {}) and "upgrade rapidin" in info.advice
            for refused in (built.build_derived, built.drop_derived):
                with pytest.raises(SettingError, match="is unknown: choose from"):
                    refused(self.KIND.name)
            commit(built, 120, clustered(10, seed=2))
            assert self.files(built) == before
        assert built.verify().ok
        assert (self.info(built).covered, self.info(built).uncovered) == (120, 10)

    def test_exports_and_copies_have_it_or_say_that_they_do_not(self, built: Store, tmp_path: Path) -> None:
        exported = export_vectors(built, tmp_path / "export").notes
        notes = recode(built.path, tmp_path / "copy", 4).notes
        with Store.open(tmp_path / "copy") as copy:
            if self.KIND.travels:
                assert notes == exported == ()
                assert self.info(copy) == self.info(built)
                assert copy.verify().ok
                return
            assert self.KIND.title in notes[0] and str(tmp_path / "copy") in notes[0]
            assert self.KIND.title in exported[0] and str(tmp_path / "export") in exported[0]
            assert self.info(copy) is None

    def test_a_kill_between_any_two_steps_leaves_a_right_store(self, template: Path, tmp_path: Path) -> None:
        cases = {moment: tmp_path / "-".join(moment) for moment in MOMENTS}
        for place in cases.values():
            shutil.copytree(template, place)
        killed = run_python(
            CHILDREN, json.dumps([(str(place), self.KIND.name, *moment) for moment, place in cases.items()])
        )
        assert killed.returncode == 0, killed.stderr
        assert json.loads(killed.stdout) == [signal.SIGKILL] * len(cases)
        for place in cases.values():
            with Store.open(place) as store:
                assert store.verify().ok
                self.build(store)
                assert self.info(store).uncovered == 0
                assert store.verify().ok
                assert store.info().bytes_unnamed == 0

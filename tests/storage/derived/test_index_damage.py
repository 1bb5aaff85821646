"""Damaged indexes: an error that says what to do, or, unasked, an exact answer; never a wrong one."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rapidin.errors import SettingError, StoreCorruptError, StoreError
from rapidin.storage import Store
from rapidin.storage.derived import derived_records
from rapidin.storage.vectors.segment_writing import file_checksum
from tests.storage.derived.clusters import KINDS, clustered, clustered_store, ids
from tests.storage.stores import flip_byte

QUERIES = clustered(5, seed=2)


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp(kind) / "store"
        clustered_store(made[kind], kinds=(kind,)).close()
    return made


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def indexed(templates, kind: str, path: Path):
    shutil.copytree(templates[kind], path)
    with Store.open(path) as store:
        yield store


def parts(store: Store) -> list[Path]:
    """Files of the parts, in the order of the segments."""
    return sorted(file for file in (store.path / "indexes").iterdir() if "-" in file.stem)


def shared(store: Store) -> Path:
    return next(file for file in (store.path / "indexes").iterdir() if "-" not in file.stem)


def execute(store: Store, *statements: str) -> None:
    with closing(sqlite3.connect(store.path / "store.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def swap(first: Path, second: Path) -> None:
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


THE_FILE_OF_ANOTHER = (
    "UPDATE derived_parts SET (file, bytes, file_checksum) = "
    "(SELECT file, bytes, file_checksum FROM derived_parts WHERE id = 1) WHERE id = 2"
)

DAMAGE = {
    "missing": lambda store: parts(store)[1].unlink(),
    "truncated": lambda store: truncate(parts(store)[1]),
    "longer": lambda store: parts(store)[1].open("ab").write(b"x"),
    "empty": lambda store: parts(store)[1].write_bytes(b""),
    "header": lambda store: flip_byte(parts(store)[1], 3),
    "content": lambda store: flip_byte(parts(store)[1], -5),
    "swapped": lambda store: swap(*parts(store)[:2]),
    "a directory": lambda store: (file := parts(store)[1], file.unlink(), file.mkdir()),
    "folder": lambda store: shutil.rmtree(store.path / "indexes"),
    "parameters": lambda store: execute(store, "UPDATE derived SET parameters = replace(parameters, '\"', '\" ')"),
    "parameters as bytes": lambda store: execute(store, "UPDATE derived SET parameters = x'ff00'"),
    "rows": lambda store: execute(store, "UPDATE derived_parts SET rows = 199 WHERE id = 2"),
    "checksum": lambda store: execute(store, "UPDATE derived_parts SET file_checksum = 'a' WHERE id = 2"),
    "bytes": lambda store: execute(store, "UPDATE derived_parts SET bytes = 'many' WHERE id = 2"),
    "file elsewhere": lambda store: execute(store, "UPDATE derived_parts SET file = '../store.db' WHERE id = 2"),
    "file as bytes": lambda store: execute(store, "UPDATE derived_parts SET file = x'ff' WHERE id = 2"),
    "the file of another part": lambda store: execute(store, THE_FILE_OF_ANOTHER),
    "parts of each other's segments": lambda store: execute(
        store,
        "UPDATE derived_parts SET segment_id = -segment_id",
        "UPDATE derived_parts SET segment_id = CASE segment_id WHEN -1 THEN 2 WHEN -2 THEN 1 ELSE 3 END",
    ),
    "no such segment": lambda store: execute(store, "UPDATE derived_parts SET segment_id = 77 WHERE id = 2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_or_answered_exactly(indexed: Store, kind: str, damage: str, caplog) -> None:
    with indexed.snapshot() as snapshot:
        assert snapshot.chosen_index() == kind
        truth = snapshot.search_ends(QUERIES, 10).ends
    DAMAGE[damage](indexed)
    # Opened anew: what is open already was checked and stays as it was.
    with Store.open(indexed.path) as again, again.snapshot() as snapshot:
        for _ in range(2):
            with pytest.raises(
                StoreCorruptError, match=f"rapidin index .* --type {kind} --retrain', or .*--exact"
            ):
                snapshot.search(QUERIES, 10, index=kind)
        with caplog.at_level(logging.WARNING, logger="rapidin"):
            assert snapshot.search_ends(QUERIES, 10, index="auto").ends == truth
            assert snapshot.chosen_index() == "exact"
        assert "this search is exact" in caplog.text
        assert len(caplog.records) == 1, "one warning for each snapshot"
        assert snapshot.search_ends(QUERIES, 10, ("third>=0",), kind).ends == truth
    problems = indexed.verify().problems
    assert problems
    assert all("index" in problem or "derived_parts" in problem for problem in problems)
    info = indexed.info().indexes[1]
    assert info.name == kind
    indexed.build_index(kind, retrain=True)
    assert indexed.verify().ok
    with indexed.snapshot() as snapshot:
        assert snapshot.chosen_index() == kind
        assert ids(snapshot.search(QUERIES, 1, index=kind).largest) == [found[:1] for found in ids(truth[0])]


@pytest.mark.parametrize("damage", [Path.unlink, truncate, lambda file: flip_byte(file, -5)])
def test_damaged_centroids(templates, path: Path, damage) -> None:
    shutil.copytree(templates["ivf"], path)
    with Store.open(path) as store:
        file = shared(store)
        damage(file)
        with store.snapshot() as snapshot:
            assert snapshot.chosen_index() == "exact"
            with pytest.raises(StoreCorruptError, match=re.escape(str(file))):
                snapshot.chosen_index("ivf")
        assert len(store.verify().problems) == 1
        before = store.info().indexes[1].parameters
        report = store.build_index("ivf")
        assert (report.trained, report.covered, report.repaired) == (True, 600, 1)
        asked = ("nlist", "nprobe", "recall_target")
        assert [report.parameters[name] for name in asked] == [before[name] for name in asked]
        assert store.verify().ok


def test_what_was_asked_for_is_asked_for_again(path: Path) -> None:
    """Where the whole index has to be made anew."""
    with clustered_store(path) as store:
        store.build_index("ivf", nlist=9, nprobe=4, train_sample=300)
        shared(store).unlink()
        anew = store.build_index("ivf")
        assert (anew.trained, anew.repaired) == (True, 1)
        assert [anew.parameters[name] for name in ("nlist", "nprobe", "train_rows")] == [9, 4, 300]
        with pytest.raises(SettingError, match="add --retrain"):
            store.build_index("ivf", nlist=8)


@pytest.mark.parametrize("damage", DAMAGE)
def test_building_again_makes_damage_good(indexed: Store, kind: str, damage: str) -> None:
    """What error messages advise; the parts that are sound stay."""
    with indexed.snapshot() as snapshot:
        truth = snapshot.search_ends(QUERIES, 10, index=kind).ends
    times = {file.name: file.stat().st_mtime_ns for file in parts(indexed)}
    DAMAGE[damage](indexed)
    report = indexed.build_index(kind)
    assert report.repaired >= 1
    assert (report.covered, report.uncovered, report.advice) == (600, 0, None)
    assert indexed.verify().ok
    with indexed.snapshot() as snapshot:
        assert snapshot.chosen_index() == kind
        assert snapshot.search_ends(QUERIES, 10, index=kind).ends == truth
    if damage in ("missing", "truncated", "content"):
        assert (report.trained, report.added, report.repaired) == (False, 200, 1)
        kept = {file.name for file in parts(indexed) if times[file.name] == file.stat().st_mtime_ns}
        assert len(kept) == 2
    again = indexed.build_index(kind)
    assert (again.trained, again.added, again.repaired) == (False, 0, 0)


def test_damage_of_a_part_without_live_rows(indexed: Store, kind: str) -> None:
    indexed.delete([f"s{i:04}" for i in range(200, 400)])
    parts(indexed)[1].unlink()
    report = indexed.build_index(kind)
    assert (report.added, report.repaired, report.covered) == (0, 1, 400)
    assert indexed.verify().ok


@pytest.mark.parametrize("damage", ["missing", "truncated", "a directory", "folder", "file as bytes"])
def test_info_sees_missing_files(indexed: Store, kind: str, damage: str) -> None:
    assert indexed.info().indexes[1].advice is None
    DAMAGE[damage](indexed)
    advice = indexed.info().indexes[1].advice
    assert "files are missing or damaged" in advice
    assert f"'rapidin index {indexed.path} --type {kind}' makes them again" in advice


def test_repairs_do_not_count_as_growth(templates, path: Path) -> None:
    shutil.copytree(templates["ivf"], path)
    with Store.open(path) as store:
        parts(store)[0].unlink()
        assert store.build_index("ivf").parameters["added_rows"] == 0


def replace_file(store: Store, file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays in a file of an index, and have the database agree with its bytes."""
    save_file(arrays, file)
    checksum, size = file_checksum(file)
    execute(
        store,
        f"UPDATE derived_parts SET bytes = {size}, file_checksum = '{checksum}' WHERE file = '{file.name}'",
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"lists": np.full(200, 999, np.int32)}, "a row is in no list"),
        ({"lists": np.full(200, -1, np.int32)}, "a row is in no list"),
        ({"lists": np.zeros(199, np.int32)}, "does not hold 'lists' of shape"),
        ({"lists": np.zeros(200, np.int64)}, "does not hold 'lists' of shape"),
        ({"list": np.zeros(200, np.int32)}, "does not hold 'lists' of shape"),
    ],
)
def test_contents_that_do_not_fit(templates, path: Path, arrays: dict, message: str) -> None:
    """Bytes as the database says, but not those of a part."""
    shutil.copytree(templates["ivf"], path)
    with Store.open(path) as store:
        replace_file(store, parts(store)[1], arrays)
        with store.snapshot() as snapshot:
            with pytest.raises(StoreCorruptError, match=message):
                snapshot.search(QUERIES, 3, index="ivf")
            assert snapshot.chosen_index() == "exact"
        assert any(message in problem for problem in store.verify().problems)


def test_a_file_that_is_no_safetensors(templates, path: Path) -> None:
    shutil.copytree(templates["ivf"], path)
    with Store.open(path) as store:
        file = parts(store)[1]
        file.write_bytes(b"\xff" * 100)
        checksum, size = file_checksum(file)
        execute(
            store,
            f"UPDATE derived_parts SET bytes = {size}, file_checksum = '{checksum}' WHERE file = '{file.name}'",
        )
        with store.snapshot() as snapshot, pytest.raises(StoreCorruptError, match="no safetensors file"):
            snapshot.chosen_index("ivf")


def test_a_part_that_is_not_named_is_scanned(indexed: Store, kind: str) -> None:
    execute(indexed, "DELETE FROM derived_parts WHERE segment_id = 2")
    info = indexed.info().indexes[1]
    assert (info.covered, info.uncovered) == (400, 200)
    with indexed.snapshot() as snapshot:
        exact = snapshot.search(QUERIES, 600).largest
        found = snapshot.search(QUERIES, 600, index=kind).largest
        for every, some in zip(ids(exact), ids(found), strict=True):
            middle = {f"s{i:04}" for i in range(200, 400)}
            assert middle <= set(some) <= set(every)
    assert indexed.build_index(kind).added == 200


def test_parameters_of_a_newer_rapidin(templates, path: Path) -> None:
    shutil.copytree(templates["ivf"], path)
    with Store.open(path) as store:
        with store._database.writing() as session:
            record = derived_records.read(session)["ivf"]
            newer = replace(record, parameters=record.parameters.replace('"width"', '"breadth"'))
            derived_records.update_derived(session, derived_records._signed(newer))
        with store.snapshot() as snapshot:
            assert snapshot.chosen_index() == "exact"
            with pytest.raises(StoreError, match="upgrade rapidin"):
                snapshot.chosen_index("ivf")
        assert any("upgrade rapidin" in problem for problem in store.verify().problems)
        assert "upgrade rapidin" in store.info().indexes[1].advice

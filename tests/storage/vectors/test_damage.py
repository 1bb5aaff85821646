"""Damaged files: found by verify, refused by search, never answered from, never a traceback."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, text, update

from rapidin.errors import RapidinError, StoreCorruptError, StoreFormatError
from rapidin.storage import Store
from rapidin.storage.catalog.schema import SegmentRow, SettingsRow
from rapidin.storage.maintenance import verification
from rapidin.storage.vectors import segment_writing
from tests.storage.stores import flip_byte, numbered, random_vectors, segment_files

QUERY = random_vectors(1, seed=3)


def middle(path: Path) -> int:
    return path.stat().st_size // 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


DAMAGES = {
    "first byte": lambda path: flip_byte(path, 0),
    "number of vectors": lambda path: flip_byte(path, 8),
    "a vector": lambda path: flip_byte(path, middle(path)),
    "last byte": lambda path: flip_byte(path, path.stat().st_size - 1),
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_named_and_refused(filled: Store, damage: str) -> None:
    """A search before the damage must not make the process trust the file for ever."""
    with filled.snapshot() as snapshot:
        snapshot.search(QUERY, 1)
    file = segment_files(filled)[1]
    DAMAGES[damage](file)
    report = filled.verify()
    assert not report.ok and report.samples == 20
    assert [str(file) in problem for problem in report.problems] == [True]
    with filled.snapshot() as snapshot:
        with pytest.raises(StoreCorruptError, match=file.name):
            snapshot.search(QUERY, 1)
        with pytest.raises(StoreCorruptError, match=r"backup.*ingest"):
            snapshot.scores(QUERY)
        assert len(snapshot.search(QUERY, 9, ["rank<8"]).largest[0]) == 8  # does not touch the damaged one
    filled.delete(where=["rank>=8", "rank<16"])
    with filled.snapshot() as snapshot:
        assert len(snapshot.search(QUERY, 20).largest[0]) == 12


def test_verify_reads_the_bytes_again(filled: Store) -> None:
    """Bytes that change on disk under the same size and times are noticed by verify at the latest."""
    import os

    assert filled.verify().ok
    file = segment_files(filled)[0]
    times = file.stat()
    with file.open("r+b") as opened:
        opened.seek(200)
        opened.write(b"\1\2")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert any(file.name in problem for problem in filled.verify().problems)


def test_a_segment_that_is_another(filled: Store) -> None:
    first, second, _ = segment_files(filled)
    shutil.copyfile(first, second)
    assert any(second.name in problem for problem in filled.verify().problems)
    with filled.snapshot() as snapshot, pytest.raises(StoreCorruptError, match=second.name):
        snapshot.search(QUERY, 1)


@pytest.mark.parametrize("kind", ["rows", "dimension", "flat", "fp32 metric"])
def test_the_header_must_agree_with_the_database(filled: Store, kind: str) -> None:
    """Size and checksum may be right and the content still no such segment."""
    import faiss

    file = segment_files(filled)[2]
    half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    index, count = {
        "rows": (faiss.IndexScalarQuantizer(64, half, product), 3),
        "dimension": (faiss.IndexScalarQuantizer(32, half, product), 4),
        "flat": (faiss.IndexFlatIP(64), 4),
        "fp32 metric": (faiss.IndexScalarQuantizer(64, half, faiss.METRIC_L2), 4),
    }[kind]
    index.add(random_vectors(count, dimension=index.d))
    faiss.write_index(index, str(file))
    checksum, size = segment_writing.file_checksum(file)
    with filled._database.writing() as session:
        where = SegmentRow.name == file.name
        session.execute(update(SegmentRow).where(where).values(checksum=checksum, bytes=size))
    assert any(file.name in problem for problem in filled.verify().problems)
    said = "cannot hold 4 vectors of 64 numbers" if kind in ("rows", "dimension") else "in 16 bits"
    with filled.snapshot() as snapshot, pytest.raises(StoreCorruptError, match=said):
        snapshot.search(QUERY, 1)


def test_vectors_that_are_not_finite_are_found(filled: Store) -> None:
    """Written by something else than rapidin, with the right checksum."""
    file = segment_files(filled)[2]
    content = file.read_bytes()
    infinite = np.float16(np.inf).tobytes()
    file.write_bytes(content[:-8] + infinite + content[-6:])
    checksum, _ = segment_writing.file_checksum(file)
    with filled._database.writing() as session:
        session.execute(update(SegmentRow).where(SegmentRow.name == file.name).values(checksum=checksum))
    problems = filled.verify().problems
    assert len(problems) == 1 and "not finite" in problems[0] and file.name in problems[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "altered"}, "s005"),
        ({"scale": 2.0}, "s005"),
        ({"metadata_json": '{"topic":"evil"}'}, "s005"),
        ({"position": 99}, "s005"),
        ({"position": -1}, "s005"),
        ({"segment_id": 77}, "s005"),
        ({"segment_id": 2, "position": 3}, "s005"),
        ({"tokens": "many"}, "s005"),
        ({"scale": "large"}, "s005"),
        ({"position": "first"}, "s005"),
        ({"prompt": b"\xff\xfe"}, "s005"),
    ],
)
def test_altered_rows_are_found(filled: Store, values: dict, expected: str) -> None:
    """Past every constraint, as a damaged disk would."""
    import sqlite3

    names = {"metadata_json": "metadata"}
    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        if values == {"segment_id": 2, "position": 3}:
            values = {"segment_id": 1, "position": 4}
            connection.execute("UPDATE samples SET position=1000 WHERE sample_id='s004'")
        for name, value in values.items():
            connection.execute(
                f"UPDATE samples SET {names.get(name, name)}=? WHERE sample_id=?", (value, expected)
            )
    connection.close()
    report = filled.verify()
    assert not report.ok
    assert any(expected in problem for problem in report.problems)
    with pytest.raises(StoreCorruptError):
        filled.get(expected)
    with pytest.raises(StoreCorruptError), filled.snapshot() as snapshot:
        snapshot.search(QUERY, 20)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("UPDATE sample_metadata SET number = 5.0 WHERE number = 5 AND sample_key = 6", "rank"),
        ("UPDATE sample_metadata SET text = 'even' WHERE text = 'odd' AND sample_key = 6", "topic"),
        ("UPDATE sample_metadata SET kind = 2 WHERE number = 5 AND sample_key = 6", "rank"),
        ("UPDATE metadata_fields SET name = 'range' WHERE name = 'rank'", "range"),
        ("DELETE FROM sample_metadata WHERE number = 5 AND sample_key = 6", "rank"),
        ("DELETE FROM sample_metadata WHERE sample_key = 6", "nested"),
        ("DELETE FROM sample_metadata", "nested"),
        ("INSERT INTO sample_metadata SELECT 6, 99, 0, 1, NULL", "number 99"),
    ],
)
def test_what_filters_see_is_compared(filled: Store, change: str, field: str) -> None:
    import sqlite3

    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        connection.execute(change)
    connection.close()
    problems = [problem for problem in filled.verify().problems if "'s005'" in problem]
    assert len(problems) == 1 and f"another {field!r}" in problems[0] and "ingest it again" in problems[0]
    filled.delete(["s005"])
    assert not any("'s005'" in problem for problem in filled.verify().problems)


def test_many_differences_are_summed_up(filled: Store, monkeypatch) -> None:
    monkeypatch.setattr(verification, "MOST_NAMED", 3)
    with filled._database.writing() as session:
        session.execute(text("DELETE FROM sample_metadata"))
    problems = filled.verify().problems
    assert len(problems) == 4 and "20 samples in all" in problems[3]


def test_two_samples_that_share_a_vector_are_found(filled: Store) -> None:
    """The table forbids it, so the constraint goes first."""
    import sqlite3

    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(samples)")]
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("CREATE TABLE copied AS SELECT * FROM samples")
        connection.execute("DROP TABLE samples")
        connection.execute(f"CREATE TABLE samples ({', '.join(columns)})")
        connection.execute("INSERT INTO samples SELECT * FROM copied")
        connection.execute("UPDATE samples SET position=2 WHERE sample_id='s003'")
    connection.close()
    assert any("2 samples share vector 2" in problem for problem in filled.verify().problems)


def test_a_segment_name_never_leads_elsewhere(filled: Store) -> None:
    with filled._database.writing() as session:
        session.execute(update(SegmentRow).where(SegmentRow.id == 1).values(name="../../secret"))
    assert any("leads elsewhere" in problem for problem in filled.verify().problems)
    with filled.snapshot() as snapshot, pytest.raises(StoreCorruptError, match="leads elsewhere"):
        snapshot.search(QUERY, 1)


def test_an_unknown_codec_asks_for_an_upgrade(filled: Store) -> None:
    with filled._database.writing() as session:
        session.execute(update(SegmentRow).values(codec="bits1"))
    with filled.snapshot() as snapshot, pytest.raises(StoreFormatError, match="upgrade"):
        snapshot.search(QUERY, 1)
    assert not filled.verify().ok


def test_missing_settings(filled: Store) -> None:
    with filled._database.writing() as session:
        session.execute(delete(SettingsRow))
    with pytest.raises(StoreCorruptError, match="settings"):
        Store.open(filled.path)


@pytest.mark.slow
def test_a_flipped_byte_in_the_database_is_never_answered_from(filled: Store, tmp_path) -> None:
    """Bytes all over store.db, one at a time: either nothing that a user sees changes, or it is noticed."""
    filled.delete(["s007"])
    filled.close()
    intact = tmp_path / "intact.db"
    shutil.copyfile(filled.path / "store.db", intact)
    truth = seen(filled.path)
    offsets = [*random.Random(0).sample(range(intact.stat().st_size), 100), middle(intact), 0, 20, 100]
    noticed = 0
    for offset in offsets:
        shutil.copyfile(intact, filled.path / "store.db")
        for leftover in filled.path.glob("store.db-*"):
            leftover.unlink()
        flip_byte(filled.path / "store.db", offset)
        try:
            with Store.open(filled.path) as store:
                ok = store.verify().ok
            if ok:
                assert seen(filled.path) == truth, offset
        except RapidinError as error:
            assert "store" in str(error)
            ok = False
        noticed += not ok
    assert noticed > 10


def seen(path: Path):
    with Store.open(path) as store, store.snapshot() as snapshot:
        hits = [(hit.id, hit.score) for hit in snapshot.search(QUERY, 30).largest[0]]
        filtered = [store.count([where]) for where in ("topic = odd", "rank > 9", "rank != 3", "tokens > 15")]
        return [repr(sample) for sample in store.list()], hits, filtered


def test_a_damaged_database_is_refused_by_writers(filled: Store) -> None:
    filled.close()
    database = filled.path / "store.db"
    database.write_bytes(database.read_bytes()[: middle(database)])
    try:
        with Store.open(filled.path) as store:
            assert not store.verify().ok
            with pytest.raises(StoreCorruptError), store.writer() as writer:
                writer.commit(numbered(0, 9), random_vectors(9))
    except StoreCorruptError as error:
        assert "store.db" in str(error)


def test_integrity_check_problems_are_reported(filled: Store) -> None:
    with filled._database.writing() as session:
        session.execute(text("PRAGMA writable_schema=ON"))
        session.execute(
            text("UPDATE sqlite_master SET rootpage=(SELECT rootpage FROM sqlite_master WHERE name='segments')")
        )
    filled.close()
    try:
        with Store.open(filled.path) as store:
            assert not store.verify().ok
    except RapidinError as error:
        assert "store.db" in str(error)

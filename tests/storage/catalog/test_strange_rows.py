"""Rows of a stranger's store with right checksums and impossible contents: an error that names the sample."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from rapidin.errors import RapidinError, StoreCorruptError, StoreError
from rapidin.storage import Store, export_vectors
from rapidin.storage.catalog import text_checksum
from rapidin.storage.catalog.sample_rows import _FIELDS
from rapidin.storage.derived import derived_records
from tests.storage.stores import random_vectors

DEEP = "[" * 100_000
NESTED = '{"a":' * 50_000 + "1" + "}" * 50_000
VALUES = {
    "metadata is a list": ("metadata", "[1,2]"),
    "metadata is no JSON": ("metadata", "{"),
    "metadata is nested deeply": ("metadata", NESTED),
    "metadata is nested 2000 deep": ("metadata", '{"a":' * 2000 + "1" + "}" * 2000),
    "spans are nested deeply": ("target_spans", DEEP),
    "spans are no pairs": ("target_spans", "[[1]]"),
    "tokens is a text": ("tokens", "many"),
    "row is negative": ("row", -5),
    "row is a fraction": ("row", 1.5),
    "prompt is a number": ("prompt", b"\x00\xff"),
    "scale is a text": ("scale", "much"),
    "position is huge": ("position", 2**60),
}


def resigned(path: Path) -> None:
    """Give every row a checksum that fits its contents, as a stranger can."""
    connection = sqlite3.connect(path / "store.db")
    names = ["metadata" if name == "metadata_json" else name for name in _FIELDS]
    with connection:
        quoted = ", ".join(f'"{name}"' for name in names)
        for key, *values in connection.execute(f"SELECT key, {quoted} FROM samples").fetchall():
            values[names.index("truncated")] = bool(values[names.index("truncated")])
            try:
                checksum = text_checksum(json.dumps(values))
            except TypeError:
                continue
            connection.execute("UPDATE samples SET checksum = ? WHERE key = ?", (checksum, key))
    connection.close()


@pytest.mark.parametrize("case", VALUES)
def test_a_row_that_no_store_holds(filled: Store, tmp_path: Path, case: str) -> None:
    column, value = VALUES[case]
    filled.close()
    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f'UPDATE samples SET "{column}" = ? WHERE sample_id = ?', (value, "s003"))
    connection.close()
    resigned(filled.path)
    with Store.open(filled.path) as store:

        def search() -> None:
            with store.snapshot() as snapshot:
                snapshot.search(random_vectors(20)[3:4], 30)

        attempts = (search, store.list, lambda: export_vectors(store, tmp_path / "export"))
        for attempt in attempts[:1] if column == "position" else attempts:
            with pytest.raises(StoreCorruptError):
                attempt()
        problems = store.verify().problems
        assert problems and all(len(problem) < 1000 for problem in problems)
        if column not in ("position",):
            assert any("s003" in problem for problem in problems)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE segments SET bytes = 'x' WHERE id = 1",
        "UPDATE segments SET rows = 'x' WHERE id = 1",
        "UPDATE segments SET rows = -1 WHERE id = 1",
        "UPDATE segments SET name = x'ff00' WHERE id = 1",
        "UPDATE segments SET checksum = 5.5 WHERE id = 1",
        "UPDATE segments SET codec = x'00' WHERE id = 1",
        "UPDATE settings SET created = x'ff'",
        "UPDATE settings SET settings = '" + "[" * 100_000 + "'",
    ],
)
def test_a_row_of_another_table_that_no_store_holds(filled: Store, statement: str) -> None:
    filled.close()
    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        connection.execute(statement)
    connection.close()

    def everything() -> None:
        with Store.open(filled.path) as store:
            assert not store.verify().ok
            with store.snapshot() as snapshot:
                snapshot.search(random_vectors(1), 3)
            store.info()
            store.compact()
            raise StoreCorruptError("")

    with pytest.raises(RapidinError):
        everything()


def test_memory_for_vectors_that_a_file_cannot_hold(filled: Store) -> None:
    """A stranger's settings may say that a vector has 2^28 numbers."""
    filled.close()
    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        (text,) = connection.execute("SELECT settings FROM settings").fetchone()
        settings = json.loads(text)
        settings["projection"]["dimension"] = 2**28
        text = json.dumps(settings)
        connection.execute("UPDATE settings SET settings = ?, checksum = ?", (text, text_checksum(text)))
    connection.close()
    with Store.open(filled.path) as store:
        assert any("cannot hold" in problem for problem in store.verify().problems)
        store.delete(["s001"])
        with pytest.raises(StoreCorruptError, match="cannot hold"):
            store.compact()


def test_parameters_of_an_index_that_are_nested_deeply(filled: Store) -> None:
    filled.build_index("ivf")
    with filled._database.writing() as session:
        record = derived_records.read(session)["ivf"]
        derived_records.update_derived(session, derived_records.with_parameters(record, DEEP))
    with filled.snapshot() as snapshot:
        assert len(snapshot.search(random_vectors(1), 3, index="auto").largest[0]) == 3
        with pytest.raises(StoreError):
            snapshot.search(random_vectors(1), 3, index="ivf")
    assert not filled.verify().ok
    assert filled.info().samples == 20

"""Creating and opening stores, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rapidin.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreNotFoundError,
)
from rapidin.storage import Store
from tests.storage.stores import (
    ROOT,
    fill,
    flip_byte,
    random_vectors,
    run_python,
    store_settings,
)


def test_where_there_is_no_store(path, tmp_path) -> None:
    assert not Store.exists(path)
    with pytest.raises(StoreNotFoundError, match="rapidin ingest"):
        Store.open(path)
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(StoreFormatError, match="it is a file"):
        Store.open(file)
    with pytest.raises(StoreError, match="it is a file"):
        Store.create(file, store_settings())
    assert not Store.exists(file)
    with pytest.raises(StoreError):
        Store.create(file / "below", store_settings())
    with pytest.raises(StoreError, match="'file'"):
        Store.create(tmp_path, store_settings())
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_store_is_not_created_over_another(filled: Store) -> None:
    with pytest.raises(StoreError, match="a store already"):
        Store.create(filled.path, store_settings())
    assert filled.count() == 20


def test_directories_with_odd_names(tmp_path) -> None:
    for name in ("a b", "100% #1?mode=memory", "näme\n'x\""):
        with Store.create(tmp_path / name / "deep", store_settings()) as store:
            fill(store)
            assert store.verify().ok
        assert (tmp_path / name / "deep" / "store.db").is_file()


def test_what_a_killed_creation_leaves_is_an_empty_directory(path) -> None:
    (path / "segments").mkdir(parents=True)
    (path / "writer.lock").touch()
    (path / ".store.db.tmp").write_bytes(b"half a database")
    with Store.create(path, store_settings()) as store:
        fill(store)
    assert not list(path.glob(".store*"))


def test_a_database_that_is_no_store(path) -> None:
    import sqlite3

    path.mkdir()
    with sqlite3.connect(path / "store.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(StoreFormatError, match="not made by rapidin"):
        Store.open(path)
    (path / "store.db").write_bytes(b"text, not a database, but quite long " * 100)
    with pytest.raises(StoreCorruptError, match=r"store\.db"):
        Store.open(path)


def test_an_altered_setting_is_noticed(filled: Store) -> None:
    filled.close()
    database = filled.path / "store.db"
    flip_byte(database, database.read_bytes().index(b'"shuffles":20') + len(b'"shuffles":'))
    with pytest.raises(StoreCorruptError, match="settings"):
        Store.open(filled.path)


def test_opening_imports_neither_faiss_nor_torch(filled: Store) -> None:
    child = run_python(
        "import sys; from rapidin.storage import Store; store = Store.open(sys.argv[1]);"
        "store.info(); store.list(['rank>3']); store.get('s001');"
        "print(sorted({'faiss', 'torch', 'transformers', 'alembic', 'pyarrow'} & sys.modules.keys()))",
        filled.path,
    )
    assert child.stdout == "[]\n", child.stderr


def test_without_faiss_the_error_says_what_to_install(filled: Store, monkeypatch) -> None:
    import sys

    from rapidin.errors import DependencyError

    monkeypatch.setitem(sys.modules, "faiss", None)
    with filled.snapshot() as snapshot, pytest.raises(DependencyError, match=r"rapidin\[cpu\]"):
        snapshot.search(random_vectors(1), 1)
    with pytest.raises(DependencyError):
        filled.verify()


FULL_DISK = """
import resource, sys
from rapidin.errors import StoreError
from rapidin.storage import Store
from tests.storage.stores import random_vectors
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can grow, as on a full disk
with Store.open(sys.argv[1]) as store:
    with store.snapshot() as snapshot:
        (found,) = snapshot.search(random_vectors(1), 3).largest
    print(store.info().samples, len(store.list(["topic=even"])), len(found), flush=True)
    sys.stdin.readline()
    try:
        store.delete(["s000"])
    except StoreError as error:
        print(type(error).__name__, error)
print(Store.open(sys.argv[1]).verify().ok)
"""


def test_reading_on_a_full_disk(filled: Store) -> None:
    """SQLite has no room for its helper files; nobody may write while the file is read without them."""
    filled.close()
    process = subprocess.Popen(
        [sys.executable, "-c", FULL_DISK, filled.path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "20 10 3\n"
    with Store.open(filled.path) as another:
        with pytest.raises(StoreLockedError), another.writer():
            pass
        assert another.count() == 20
    said, complaints = process.communicate("\n", timeout=60)
    assert process.returncode == 0, complaints
    assert said.splitlines() == [
        f"StoreSpaceError {filled.path}: no space left to write; make room and run the same command again",
        "True",
    ]
    with Store.open(filled.path) as again:
        assert again.delete(["s000"]) == 1


def test_a_full_disk_and_a_log_that_holds_something(filled: Store) -> None:
    """What was committed is in the log, which has to be read: that takes room."""
    filled.close()
    killed = """
import os, sys
from rapidin.storage import Store
store = Store.open(sys.argv[1])
store.delete(["s000"])
os._exit(0)
"""
    run_python(killed, filled.path)
    assert (filled.path / "store.db-wal").stat().st_size
    (filled.path / "store.db-shm").unlink()
    outcome = run_python(FULL_DISK, filled.path)
    assert outcome.returncode == 1
    assert "because SQLite needs a little space even to read" in outcome.stderr

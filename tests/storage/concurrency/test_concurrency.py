"""Several at once: one writer, many readers, processes that die, places without write permission."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import StoreError, StoreLockedError
from rapidin.storage import MetadataChange, NewSample, Store
from rapidin.storage.scan import cpu_scan
from tests.storage.stores import (
    ROOT,
    fill,
    new_sample,
    numbered,
    random_vectors,
    run_python,
    store_settings,
)

QUERY = random_vectors(2, seed=3)

HOLD_LOCK = """
import sys, time
from rapidin.storage import Store
with Store.open(sys.argv[1]) as store, store.writer():
    print("held", flush=True)
    time.sleep(100)
"""


def answers(snapshot):
    best = [[(h.id, h.score, repr(h)) for h in hits] for hits in snapshot.search(QUERY, 30).largest]
    ids, scores = snapshot.scores(QUERY)
    filtered = [hit.id for hit in snapshot.search(QUERY, 30, ["topic=odd"]).largest[0]]
    return best, ids, scores.tolist(), filtered


def test_one_writer_at_a_time(filled: Store) -> None:
    with filled.writer() as writer, Store.open(filled.path) as other:
        for attempt in (lambda: other.writer().__enter__(), lambda: other.delete(["s001"])):
            with pytest.raises(StoreLockedError, match=f"process {os.getpid()} "):
                attempt()
        writer.commit([new_sample("a")], random_vectors(1))
    with Store.open(filled.path) as other, other.writer() as writer:
        writer.commit([new_sample("b")], random_vectors(1))
    assert filled.count() == 22
    assert not (filled.path / "writer.json").exists()


def test_the_lock_of_a_killed_process_is_free(filled: Store) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, filled.path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {holder.pid} "), filled.writer():
            pass
        assert filled.count() == 20  # readers do not care
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with filled.writer() as writer:
        writer.commit([new_sample("a")], random_vectors(1))
    assert filled.verify().ok


def test_an_error_in_the_writers_body_releases_the_lock(filled: Store) -> None:
    with pytest.raises(ZeroDivisionError), filled.writer():
        raise ZeroDivisionError
    with filled.writer():
        pass


def test_a_snapshot_stays_as_it_was(filled: Store) -> None:
    with filled.snapshot() as untouched, filled.snapshot() as searched:
        before = answers(searched)
        with filled.writer() as writer:
            writer.commit([new_sample("s002", content_hash="n"), new_sample("zz")], random_vectors(2, seed=7))
            changed = NewSample.of(numbered(3, 4)[0], metadata={"topic": "changed"}, row=99)
            writer.update_metadata([MetadataChange.of(changed)])
        filled.delete(["s000", "s001"])
        with Store.open(filled.path) as other:
            other.delete(where=["topic=odd"])
        assert answers(searched) == before
        assert answers(untouched) == before
        assert (searched.samples, filled.count()) == (20, 11)
        with filled.snapshot() as fresh:
            assert fresh.samples == 11
            assert answers(fresh)[1] == [s.id for s in sorted(filled.list(), key=lambda s: s.id)]
    assert filled.verify().ok


READ_ALL_THE_TIME = """
import sys
from rapidin.storage import Store
from tests.storage.concurrency.test_concurrency import QUERY
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    seen = set()
    while True:
        with store.snapshot() as snapshot:
            ids, scores = snapshot.scores(QUERY)
            hits = snapshot.search(QUERY, 1000).largest[0]
            assert sorted(hit.id for hit in hits) == ids and len(ids) == snapshot.samples
            assert len(ids) % 10 == 0, ids
            seen.add(len(ids))
        if len(ids) == 100:
            break
    assert store.verify().ok
print(len(seen))
"""


def test_a_reader_in_another_process_sees_whole_commits(store: Store) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_ALL_THE_TIME, store.path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout.readline() == "ready\n", reader.communicate()
        with store.writer() as writer:
            for start in range(0, 100, 10):
                writer.commit(numbered(start, start + 10), random_vectors(10, seed=start))
        output, errors = reader.communicate(timeout=60)
    finally:
        reader.kill()
        reader.wait()
    assert reader.returncode == 0, errors
    assert int(output) >= 1


def test_threads_share_a_snapshot(filled: Store, monkeypatch) -> None:
    monkeypatch.setattr(cpu_scan, "processors", lambda: 3)
    results, errors = [], []

    def work() -> None:
        try:
            for _ in range(5):
                results.append(answers(snapshot))
        except StoreError as error:
            errors.append(error)

    with filled.snapshot() as snapshot:
        expected = answers(snapshot)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(results) == 20 and all(result == expected for result in results)


def test_a_search_leaves_the_number_of_blas_threads_alone(filled: Store) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(2), filled.snapshot() as snapshot:
        before = [pool["num_threads"] for pool in threadpool_info()]
        snapshot.search(QUERY, 3)
        assert [pool["num_threads"] for pool in threadpool_info()] == before


# The tests run as root where permissions do not bind, so a child gives up being root first.
AS_NOBODY = """
import os, sys
import faiss, sqlalchemy.dialects.sqlite, alembic.command, hypothesis, torch
from rapidin.errors import StoreError
from rapidin.storage import Store
from tests.storage.stores import new_sample, random_vectors, store_settings
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
path = sys.argv[1]
def attempt(action):
    try:
        print(action())
    except StoreError as error:
        print(type(error).__name__, error)
def commit():
    with Store.open(path) as store, store.writer() as writer:
        writer.commit([new_sample("a")], random_vectors(1))
def read():
    with Store.open(path) as store, store.snapshot() as snapshot:
        hits = snapshot.search(random_vectors(1), 3).largest[0]
        return len(hits), store.count(["topic=odd"]), store.verify().ok
attempt(read)
attempt(commit)
attempt(lambda: Store.create(path + "/below", store_settings()))
"""


@pytest.fixture
def read_only(tmp_path_factory, tmp_path):
    """A store in a directory that others than its owner may only read; pytest's own are closed to them."""
    path = tmp_path / "store"
    with Store.create(path, store_settings()) as store:
        fill(store)
    opened = [path, *(parent for parent in path.parents if "pytest" in str(parent))]
    modes = {directory: directory.stat().st_mode for directory in opened}
    for directory in opened:
        directory.chmod(0o755)
    below = [path / "segments", *path.rglob("*")]
    for file in below:
        file.chmod(0o555 if file.is_dir() else 0o444)
    path.chmod(0o555)
    yield path
    for directory, mode in modes.items():
        directory.chmod(mode)
    (path / "segments").chmod(0o755)


def test_a_directory_without_write_permission(read_only: Path) -> None:
    child = run_python(AS_NOBODY, read_only)
    lines = child.stdout.splitlines()
    assert len(lines) == 3, child.stdout + child.stderr
    assert lines[0] == "(3, 10, True)"
    assert lines[1].startswith("StoreError ") and "Permission denied" in lines[1]
    assert lines[2].startswith("StoreError ") and "Permission denied" in lines[2]


def test_an_unreadable_store(read_only: Path) -> None:
    (read_only / "store.db").chmod(0o000)
    lines = run_python(AS_NOBODY, read_only).stdout.splitlines()
    assert lines[0].startswith("StoreError ") and "store.db" in lines[0]


def test_a_log_that_cannot_be_replayed_is_not_ignored(filled: Store, monkeypatch) -> None:
    """Without write permission a store opens as it is, but not while commits still lie in the log."""
    from rapidin.storage.catalog import database as databases

    filled.delete(["s000"])

    def refusing(*_):
        raise databases.sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(databases, "_connected", refusing)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    assert (filled.path / "store.db-wal").stat().st_size > 0  # `filled` is still open
    with pytest.raises(StoreError, match="unable to open"):
        Store.open(filled.path)
    filled.close()
    with Store.open(filled.path) as store:
        assert store.count() == 19


def test_a_path_where_nothing_can_be_made() -> None:
    with pytest.raises(StoreError, match="/proc"):
        Store.create("/proc/store", store_settings())


def test_creating_at_the_same_time(path) -> None:
    """One of them makes the store, the others are told."""
    outcomes = []

    def create() -> None:
        try:
            Store.create(path, store_settings()).close()
            outcomes.append("created")
        except StoreError:
            outcomes.append("refused")

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["created", "refused", "refused", "refused"]
    with Store.open(path) as store:
        fill(store)
        assert store.verify().ok
        np.testing.assert_equal(store.count(), 20)

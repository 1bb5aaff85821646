"""Readers that may not write to the store's directory, and so may not use SQLite's locks; its owner writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from rapidin.storage import Store
from tests.storage.concurrency.test_concurrency import read_only  # noqa: F401
from tests.storage.stores import ROOT, fill, new_sample, random_vectors, store_settings

# The owner may be root, where permissions do not bind, so the reader gives up being root first.
READER = """
import json, os, sys
import faiss, sqlalchemy.dialects.sqlite, alembic.command, torch
from rapidin.errors import StoreError
from rapidin.storage import Store
from tests.storage.stores import random_vectors
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
def told(action):
    try:
        return action()
    except StoreError as error:
        return f"{type(error).__name__} {error}"
def best(snapshot):
    return [hit.id for hit in snapshot.search(random_vectors(20)[3:4], 2).largest[0]]
def fresh():
    with store.snapshot() as snapshot:
        return best(snapshot)
store = Store.open(sys.argv[1])
held = store.snapshot()
best(held)
for line in sys.stdin:
    report = store.verify()
    print(json.dumps({"count": told(store.count), "best": told(fresh), "held": told(lambda: best(held)),
                      "odd": told(lambda: store.count(["topic=odd"])), "problems": report.problems,
                      "verified": report.samples}), flush=True)
"""


@pytest.fixture
def reader(read_only: Path):  # noqa: F811
    """A function that returns what a reader sees now, who opened the store while nobody else had it open."""
    child = subprocess.Popen(
        [sys.executable, "-c", READER, read_only],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )

    def seen() -> dict:
        child.stdin.write("\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    yield seen
    child.stdin.close()
    child.wait()


@contextmanager
def written(path: Path):
    """Open the store as its owner, who alone may write to it."""
    places = [path, path / "segments"]
    for place in places:
        place.chmod(0o755)
    for file in path.iterdir():
        if file.is_file():
            file.chmod(0o644)
    with Store.open(path) as store:
        yield store
    for place in places:
        place.chmod(0o555)


def assert_deleted(seen: dict) -> None:
    assert (seen["count"], seen["verified"], seen["problems"]) == (19, 19, [])
    assert seen["best"][0] != "s003"


def test_a_later_commit_is_seen(reader, read_only: Path) -> None:  # noqa: F811
    assert reader()["best"][0] == reader()["held"][0] == "s003"
    with written(read_only) as store:
        store.delete(["s003"])
    for _ in range(2):
        seen = reader()
        assert_deleted(seen)
        assert seen["odd"] == 9
        # A view of the old state cannot be kept without locks.
        assert seen["held"].startswith("StoreError ") and "try again" in seen["held"]


def test_a_commit_is_seen_while_the_owner_has_the_store_open(reader, read_only: Path) -> None:  # noqa: F811
    with written(read_only) as store:
        store.delete(["s003"])
        assert_deleted(reader())
        with store.writer() as writer:
            writer.commit([new_sample("new")], random_vectors(1, 77))
        assert reader()["count"] == 20
    assert reader()["count"] == 20


def test_a_changed_file_of_the_same_size_and_time_is_noticed(reader, read_only: Path) -> None:  # noqa: F811
    before = (read_only / "store.db").stat()
    with written(read_only) as store:
        store.delete(["s003"])
    os.utime(read_only / "store.db", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_deleted(reader())


def test_a_store_that_takes_the_place_of_another(tmp_path: Path) -> None:
    """Every connection notices, whatever its process may do."""
    path = tmp_path / "store"
    with Store.create(path, store_settings()) as store:
        fill(store)
        assert store.count() == 20
        shutil.copytree(path, tmp_path / "other")
        with Store.open(tmp_path / "other") as other:
            other.delete(["s003"])
        path.rename(tmp_path / "old")
        (tmp_path / "other").rename(path)
        assert store.count() == 19
        with store.snapshot() as snapshot:
            assert snapshot.samples == 19

"""What a snapshot reads is kept until somebody commits: no stale answer, and no second reading without need."""

from __future__ import annotations

import numpy as np
import pytest

from rapidin.storage import Store
from rapidin.storage.catalog import tables
from tests.storage.stores import fill, new_sample, random_vectors, run_python, store_settings

QUERY = random_vectors(1, seed=9)
ANOTHER_PROCESS = """
import sys
from rapidin.storage import Store
with Store.open(sys.argv[1]) as store:
    store.delete(["s003"])
"""


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "store", store_settings()) as store:
        fill(store)
        yield store


def ids(store: Store) -> set[str]:
    with store.snapshot() as snapshot:
        return {hit.id for hit in snapshot.search(QUERY, 100).largest[0]}


def test_every_change_is_seen_by_the_next_snapshot(store: Store) -> None:
    everything = ids(store)
    assert ids(store) == everything
    store.delete(["s001"])
    assert ids(store) == everything - {"s001"}
    with store.writer() as writer:
        writer.commit([new_sample("new")], np.ones((1, 64), np.float32))
    assert ids(store) == everything - {"s001"} | {"new"}
    assert run_python(ANOTHER_PROCESS, store.path).returncode == 0
    assert ids(store) == everything - {"s001", "s003"} | {"new"}
    store.compact()
    assert ids(store) == everything - {"s001", "s003"} | {"new"}
    store.build_index("rabitq")
    with store.snapshot() as snapshot:
        assert snapshot.chosen_index() == "rabitq"


def test_an_open_snapshot_keeps_its_state(store: Store) -> None:
    with store.snapshot() as before:
        store.delete(["s001"])
        assert "s001" not in ids(store)
        assert "s001" in {hit.id for hit in before.search(QUERY, 100).largest[0]}
    assert "s001" not in ids(store)


def test_rows_are_read_once_for_each_state(store: Store, monkeypatch) -> None:
    reads: list[int] = []
    original = tables.searchable_rows

    def counting(session):
        reads.append(1)
        return original(session)

    monkeypatch.setattr(tables, "searchable_rows", counting)
    for _ in range(3):
        ids(store)
    assert len(reads) == 1
    store.delete(["s002"])
    for _ in range(3):
        ids(store)
    assert len(reads) == 2


def test_a_commit_while_a_state_is_read_is_not_kept_as_that_state(store: Store, monkeypatch) -> None:
    """The commit comes between the version and the transaction: what is read is newer than the version says."""
    original = tables.segment_records
    pending = [True]

    def committing(session):
        if pending:
            pending.clear()
            store.delete(["s004"])
        return original(session)

    ids(store)
    store.delete(["s000"])
    monkeypatch.setattr(tables, "segment_records", committing)
    first = ids(store)
    monkeypatch.undo()
    assert "s004" not in first
    assert ids(store) == first

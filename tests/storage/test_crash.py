"""A process killed before or after any step of a commit loses nothing and leaves nothing half-visible.

The child patches the product's step functions to kill itself; the product has no switch for it. One helper
process imports everything once and forks a child for each case.
"""

from __future__ import annotations

import errno
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from rapidin.errors import StoreError, StoreSpaceError
from rapidin.storage import Store
from rapidin.storage.vectors import segment_writing
from tests.storage.stores import (
    DIMENSION,
    new_sample,
    numbered,
    plain,
    random_vectors,
    run_python,
    segment_files,
)

STEPS = [
    "segments.write_temporary",
    "segments.sync_file",
    "segments.publish",
    "segments.sync_directory",
    "segments.describe",
    "tables.insert_segment",
    "tables.mark_deleted",
    "tables.insert_samples",
    "tables.insert_metadata_fields",
    "StoreWriter._record",
]
MOMENTS = [(step, moment) for step in STEPS for moment in ("before", "after")]

CHILDREN = """
import json, os, signal, sys
from rapidin.storage import Store, StoreWriter
from rapidin.storage.catalog import tables
from rapidin.storage.vectors import segment_writing as segments
from tests.storage.test_crash import ingest
import faiss

def die_around(step, moment):
    home, name = step.split(".")
    home = {"segments": segments, "tables": tables, "StoreWriter": StoreWriter}[home]
    original = getattr(home, name)
    def dying(*arguments, **named):
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(home, name, dying)

statuses = []
for path, step, moment in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        die_around(step, moment)
        with Store.open(path) as store:
            ingest(store)
        os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])
print(json.dumps(statuses))
"""

QUERIES = random_vectors(3, seed=9)


def batches():
    """New samples s020–s023 and replaced ones s004–s011, in two batches."""
    samples = [
        new_sample(f"s{i:03}", content_hash="new", metadata={"new": i}) for i in [*range(4, 12), *range(20, 24)]
    ]
    vectors = random_vectors(12, seed=5)
    return [(samples[:7], vectors[:7]), (samples[7:], vectors[7:])]


def ingest(store: Store) -> int:
    """Commit the batches that the store does not hold yet, as an ingest does; how many."""
    done = 0
    for samples, vectors in batches():
        known = store.content_hashes(sample.id for sample in samples)
        wanted = {sample.id: (sample.content_hash, sample.metadata_hash) for sample in samples}
        if known != wanted:
            with store.writer() as writer:
                writer.commit(samples, vectors)
            done += 1
    return done


def state(store: Store):
    """Everything that a user can see: samples, vectors and scores."""
    with store.snapshot() as snapshot:
        ids, vectors = snapshot.scores(np.eye(DIMENSION, dtype=np.float32))
        hits = [[(h.id, h.score) for h in of_query] for of_query in snapshot.search(QUERIES, 30).largest]
    samples = sorted((plain(sample) for sample in store.list()), key=lambda sample: sample["id"])
    return samples, ids, vectors.tolist(), hits, store.info().metadata_fields


@pytest.fixture(scope="module")
def states(filled_template: Path, tmp_path_factory):
    """States of a run that nothing disturbs: before, after the first batch, after both."""
    path = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(filled_template, path)
    with Store.open(path) as store:
        seen = [state(store)]
        for samples, vectors in batches():
            with store.writer() as writer:
                writer.commit(samples, vectors)
            seen.append(state(store))
    return seen


@pytest.fixture(scope="module")
def killed(filled_template: Path, tmp_path_factory) -> dict[tuple[str, str], tuple[Path, list[str]]]:
    """By moment, a store in which a process was killed then, and the segment files left behind."""
    base = tmp_path_factory.mktemp("killed")
    cases = {}
    for number, moment in enumerate(MOMENTS):
        cases[moment] = base / f"{number}"
        shutil.copytree(filled_template, cases[moment])
    child = run_python(CHILDREN, json.dumps([(str(path), *moment) for moment, path in cases.items()]))
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == [signal.SIGKILL] * len(cases)
    return {moment: (path, [f.name for f in (path / "segments").iterdir()]) for moment, path in cases.items()}


@pytest.mark.parametrize("moment", MOMENTS, ids="-".join)
def test_killed_and_resumed_equals_undisturbed(killed, states, moment) -> None:
    committed = moment == ("StoreWriter._record", "after")
    path, _ = killed[moment]
    with Store.open(path) as store:
        assert state(store) == states[1 if committed else 0]
        assert store.verify().ok
        assert ingest(store) == (1 if committed else 2)
        assert state(store) == states[2]
        assert store.verify().ok
        assert [file.name for file in segment_files(store)] == [s.name for s in store.info().segments]
    assert {file.name for file in path.iterdir()} - {"writer.lock"} == {
        *("segments", "store.db", "store.commits", "readers.lock")
    }


@pytest.mark.parametrize(
    ("moment", "temporary", "final"),
    [
        (("segments.write_temporary", "before"), 0, 3),
        (("segments.write_temporary", "after"), 1, 3),
        (("segments.publish", "before"), 1, 3),
        (("segments.publish", "after"), 0, 4),
        (("tables.insert_metadata_fields", "after"), 0, 4),
    ],
)
def test_the_kills_happen_where_they_should(killed, moment, temporary, final) -> None:
    """Or the test above would prove little: files that a kill leaves behind."""
    _, names = killed[moment]
    assert len([name for name in names if name.endswith(".tmp")]) == temporary
    assert len([name for name in names if not name.endswith(".tmp")]) == final


def test_garbage_is_removed_by_the_next_writer_only(filled: Store) -> None:
    folder = filled.path / "segments"
    garbage = [folder / "0-0.faiss", folder / ".0-1.faiss.tmp"]
    for file in garbage:
        file.write_bytes(b"half a segment")
    (folder / "notes.txt").write_text("mine")
    assert filled.verify().ok
    assert all(file.exists() for file in garbage)
    with filled.writer():
        assert not any(file.exists() for file in garbage)
    assert (folder / "notes.txt").exists()
    assert filled.verify().ok


@pytest.mark.parametrize("step", ["write_temporary", "sync_file", "publish", "sync_directory", "describe"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_store_unharmed(filled: Store, monkeypatch, step: str, number: int) -> None:
    before = state(filled)
    files = segment_files(filled)

    def failing(store, *rest):
        with segment_writing.file_errors(store):
            raise OSError(number, "as tested")

    monkeypatch.setattr(segment_writing, step, failing)
    expected = StoreSpaceError if number == errno.ENOSPC else StoreError
    with filled.writer() as writer, pytest.raises(expected, match="as tested"):
        writer.commit([new_sample("s000", content_hash="new")], random_vectors(1))
    monkeypatch.undo()
    assert segment_files(filled) == files
    assert state(filled) == before
    assert filled.verify().ok
    ingest(filled)
    assert filled.count() == 24


def test_too_little_space_is_noticed_before_writing(filled: Store, monkeypatch) -> None:
    usage = shutil.disk_usage(filled.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with filled.writer() as writer, pytest.raises(StoreSpaceError, match="100 bytes are free"):
        writer.commit([new_sample("a")], random_vectors(1))
    monkeypatch.undo()
    assert filled.verify().ok


FILE_SIZE_LIMIT = """
import resource, signal, sys
from rapidin.errors import StoreError
from rapidin.storage import Store
from tests.storage.stores import new_sample, random_vectors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Store.open(sys.argv[1]) as store, store.writer() as writer:
    size = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        writer.commit([new_sample(f"n{i}", prompt="long " * 200) for i in range(500)], random_vectors(500))
    except StoreError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("limit", "error"), [(10_000, "StoreSpaceError"), (70_000, "StoreError")])
def test_a_file_size_limit_while_writing(filled: Store, limit: int, error: str) -> None:
    """The smaller limit stops the segment of 64,000 bytes, the larger one the database."""
    before = state(filled)
    files = segment_files(filled)
    child = run_python(FILE_SIZE_LIMIT, filled.path, limit)
    assert child.stdout.startswith(f"{error} "), child.stdout + child.stderr
    assert segment_files(filled) == files
    assert state(filled) == before
    assert filled.verify().ok


def test_a_full_disk_under_faiss_itself(filled: Store, monkeypatch) -> None:
    """The real write path: the file that FAISS writes through refuses its bytes."""
    files = segment_files(filled)
    monkeypatch.setattr(segment_writing, "temporary_path", lambda store, name, folder="": Path("/dev/full"))
    with filled.writer() as writer, pytest.raises(StoreSpaceError, match="/dev/full"):
        writer.commit([new_sample("a")], random_vectors(1))
    monkeypatch.undo()
    assert segment_files(filled) == files
    assert filled.verify().ok


def test_interrupted_before_the_transaction_ends(filled: Store, monkeypatch) -> None:
    """Control-C at the last moment: rolled back, and the next writer cleans up."""
    from rapidin.storage.catalog import tables

    before = state(filled)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "insert_metadata_fields", interrupt)
    with pytest.raises(KeyboardInterrupt), filled.writer() as writer:
        writer.commit(numbered(0, 3), random_vectors(3, seed=2))
    monkeypatch.undo()
    assert state(filled) == before
    assert len(segment_files(filled)) == 4
    with filled.writer():
        assert len(segment_files(filled)) == 3

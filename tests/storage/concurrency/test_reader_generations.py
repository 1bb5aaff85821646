"""Generations of readers: files stay for those who need them, and go although somebody always reads."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rapidin.commands.views.store_view import info_table
from rapidin.storage import Store
from rapidin.storage.concurrency import reader_generations
from rapidin.storage.concurrency.reader_generations import ReadersLock, removable
from tests.storage.stores import ROOT, new_sample, numbered, random_vectors, segment_files, store_settings

QUERIES = random_vectors(2, seed=4)


def generations(store: Store) -> list[str]:
    return sorted(path.name for path in store.path.glob("readers*"))


def replace_all(store: Store, seed: int) -> None:
    """Commit one sample, and have a compaction replace every segment file and empty the index of all."""
    with store.writer() as writer:
        writer.commit([new_sample("s000", content_hash=f"{seed}")], random_vectors(1, seed=seed))
    store.compact()


def files(store: Store) -> set[Path]:
    return {path for folder in ("segments", "indexes") for path in (store.path / folder).glob("*")}


def test_a_chain_of_readers_does_not_keep_everything(filled: Store) -> None:
    """A server whose searches overlap: at no time does nobody read."""
    made, left = [], []
    snapshot = filled.snapshot()
    for number in range(12):
        previous, snapshot = snapshot, filled.snapshot()
        previous.close()
        filled.build_index("rabitq")
        replace_all(filled, number)
        made.append(files(filled))
        left.append((len(files(filled)), len(generations(filled))))
        assert snapshot.search(QUERIES, 3).largest  # opens its files only now
    # What the last snapshot and those since it see: the same number after two rounds as after twelve.
    assert left[2:] == [left[2]] * 10, left
    assert not set.union(*made[:-2]) & files(filled)
    assert left[-1][1] == 3
    snapshot.close()
    with filled.writer():
        assert files(filled) == {filled.path / "segments" / record.name for record in filled.info().segments}
    assert len(generations(filled)) == 2
    assert filled.verify().ok


def test_an_old_reader_keeps_its_own_and_no_more(filled: Store) -> None:
    filled.build_index("rabitq")
    mine = files(filled)
    with filled.snapshot() as old:
        sizes = []
        for number in range(5):
            with filled.snapshot():
                replace_all(filled, number)
            with filled.writer():
                pass
            assert mine <= files(filled)
            sizes.append(len(generations(filled)))
        assert sizes[-1] <= 4
        with filled.snapshot() as exact:
            assert exact.samples == old.samples == 20
        assert [hit.id for hit in old.search(QUERIES, 20, index="rabitq").largest[0]] == [
            hit.id for hit in old.search(QUERIES, 20).largest[0]
        ]
    with filled.writer():
        assert not mine & files(filled)
        assert len(segment_files(filled)) == 1


def test_generations_are_made_only_for_what_is_new(filled: Store) -> None:
    with filled.snapshot():
        with filled.writer():
            assert generations(filled) == ["readers.lock"]
        filled.delete(["s001"])
        filled.compact()
        assert generations(filled) == ["readers.1.lock", "readers.lock"]
        recorded = json.loads((filled.path / "readers.1.lock").read_text())
        assert len(recorded) == 3 and all(name.startswith("segments/") for name in recorded)
        for _ in range(3):
            with filled.writer():
                assert generations(filled) == ["readers.1.lock", "readers.lock"]
    assert (filled.info().bytes_unnamed, len(segment_files(filled))) == (
        sum((filled.path / name).stat().st_size for name in recorded),
        4,
    )
    with filled.writer():
        assert (filled.info().bytes_unnamed, len(segment_files(filled))) == (0, 1)


def test_what_is_recorded_goes_when_all_before_it_are_gone(tmp_path: Path) -> None:
    """Step by step, without a database; a reader of a later generation keeps nothing of an earlier one's."""
    first = ReadersLock(tmp_path)
    assert removable(tmp_path, {"a": 1}) == set()
    second = ReadersLock(tmp_path)
    assert removable(tmp_path, {"a": 1, "b": 1}) == set()
    third = ReadersLock(tmp_path)
    second.close()
    # The file of the second ends: the third's record holds all that was in it.
    assert removable(tmp_path, {"a": 1, "b": 1}) == set()
    assert {path.name for path in tmp_path.iterdir()} == {"readers.lock", "readers.2.lock"}
    first.close()
    # "c" is new, and "b" was written anew since: the third may need it.
    assert removable(tmp_path, {"a": 1, "b": 2, "c": 1}) == {"a"}
    assert {path.name for path in tmp_path.iterdir()} == {"readers.lock", "readers.2.lock", "readers.3.lock"}
    third.close()
    assert removable(tmp_path, {"b": 2, "c": 1}) == {"b", "c"}
    assert {path.name for path in tmp_path.iterdir()} == {"readers.lock", "readers.3.lock"}


@pytest.mark.parametrize("content", ["", "[1]", '{"a": "x"}', "\udcff"])
def test_a_damaged_record_keeps_files_and_is_replaced(tmp_path: Path, content: str) -> None:
    ReadersLock(tmp_path).close()
    (tmp_path / "readers.1.lock").write_text(content, errors="surrogateescape")
    reader = ReadersLock(tmp_path)
    assert removable(tmp_path, {"a": 1}) == set()
    assert json.loads((tmp_path / "readers.2.lock").read_text()) == {"a": 1}
    reader.close()
    assert removable(tmp_path, {"a": 1}) == {"a"}


def test_a_reader_does_not_join_what_has_just_ended(tmp_path: Path, monkeypatch) -> None:
    """Between its opening of the newest file and the sharing of the lock, a writer ends that generation."""
    (tmp_path / "readers.1.lock").touch()
    real, ended = reader_generations._opened, []

    def ending(path: Path):
        file = real(path)
        if not ended:
            ended.append(path.name)
            path.unlink()
            (tmp_path / "readers.2.lock").touch()
        return file

    monkeypatch.setattr(reader_generations, "_opened", ending)
    reader = ReadersLock(tmp_path)
    assert ended == ["readers.1.lock"]
    assert removable(tmp_path, {"a": 1}) == set()
    reader.close()
    assert removable(tmp_path, {"a": 1}) == {"a"}


def test_a_full_disk_makes_no_generation_and_stops_nobody(filled: Store, monkeypatch) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, "as tested")

    with filled.snapshot() as snapshot:
        monkeypatch.setattr(reader_generations, "_make", full)
        filled.delete(["s001"])
        filled.compact()
        assert len(segment_files(filled)) == 4 and len(snapshot.search(QUERIES, 30).largest[0]) == 20
    with filled.writer():
        assert len(segment_files(filled)) == 1


def test_no_locks_no_removal(tmp_path: Path, monkeypatch) -> None:
    """Nor any number of generations, where the file system has no locks: nobody can know who reads."""

    def refusing(*_):
        raise OSError(errno.ENOLCK, "as tested")

    monkeypatch.setattr(reader_generations.fcntl, "flock", refusing)
    for number in range(3):
        reader = ReadersLock(tmp_path)
        assert removable(tmp_path, {f"{number}": 1}) == set()
        reader.close()
        assert removable(tmp_path, {f"{number}": 1}) == set()
    assert [path.name for path in tmp_path.iterdir()] == ["readers.lock"]


HOLD_SNAPSHOT = """
import sys, time
from rapidin.storage import Store
with Store.open(sys.argv[1]) as store, store.snapshot():
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_killed_reader_keeps_nothing(filled: Store) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_SNAPSHOT, filled.path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert holder.stdout.readline() == "held\n"
        filled.delete(["s001"])
        filled.compact()
        with filled.snapshot(), filled.writer():
            assert len(segment_files(filled)) == 4
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            with filled.snapshot():  # of the new generation, like the other
                pass
        with filled.snapshot(), filled.writer():
            assert len(segment_files(filled)) == 1
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_what_waits_for_readers_is_told(filled: Store) -> None:
    def told() -> str:
        return " ".join(str(cell) for column in info_table(filled.info()).columns for cell in column.cells)

    assert filled.info().bytes_unnamed == 0 and "wait for readers" not in told()
    with filled.snapshot():
        filled.delete(["s001"])
        filled.compact()
        assert "wait for readers to end" in told()
    (filled.path / "segments" / "notes.txt").write_text("of the user, who wonders")
    with filled.writer():
        assert filled.info().bytes_unnamed == 0 and "wait for readers" not in told()
    assert (filled.path / "segments" / "notes.txt").exists()


def test_leftovers_are_no_obstacle_to_a_new_store(path: Path) -> None:
    path.mkdir()
    for name in ("readers.lock", "readers.7.lock", ".readers.tmp"):
        (path / name).write_text("{")
    with Store.create(path, store_settings()) as store:
        with store.writer() as writer:
            writer.commit(numbered(0, 3), random_vectors(3))
        with store.snapshot():
            replace_all(store, 1)
            assert len(segment_files(store)) == 3
        with store.writer():
            assert len(segment_files(store)) == 1
        assert store.count() == 3


def test_who_shares_only_the_first_lock_is_seen(filled: Store) -> None:
    """As rapidin did before there were generations, and does in a directory that it may not list."""
    with filled.snapshot():
        replace_all(filled, 1)
    with (filled.path / "readers.lock").open("rb") as first:
        reader_generations.fcntl.flock(first, reader_generations.fcntl.LOCK_SH)
        kept = files(filled)
        with filled.snapshot():
            replace_all(filled, 2)
        with filled.writer():
            assert kept < files(filled)
    with filled.writer():
        assert len(files(filled)) == 1

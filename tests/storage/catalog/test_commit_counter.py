"""Acknowledged commits that are lost are noticed; a sound store opens whatever befalls the counter."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from rapidin.errors import StoreCorruptError
from rapidin.storage import Store
from rapidin.storage.catalog import commit_counter
from rapidin.storage.catalog.commit_counter import COMMITS_NAME, CommitCounter
from tests.storage.stores import flip_byte, new_sample, random_vectors, run_python

KILLED = """
import os, sys
from rapidin.storage import Store
from rapidin.storage.catalog.commit_counter import CommitCounter
from tests.storage.stores import new_sample, random_vectors
path, commits, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
original = CommitCounter.acknowledge
def dying(self, number):
    if when == "after":
        original(self, number)
    os.kill(os.getpid(), 9)
store = Store.open(path)
with store.writer() as writer:
    for number in range(commits):
        if when != "end" and number == commits - 1:
            CommitCounter.acknowledge = dying
        writer.commit([new_sample(f"new{number}")], random_vectors(1, number))
os.kill(os.getpid(), 9)
"""


def killed(path: Path, commits: int, when: str = "end") -> None:
    """Commit samples in another process, which is killed at the end, or around the last acknowledgement."""
    assert run_python(KILLED, path, commits, when).returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed_template(filled_template: Path, tmp_path_factory) -> Path:
    """A store with three commits that only its log holds."""
    path = tmp_path_factory.mktemp("killed") / "store"
    shutil.copytree(filled_template, path)
    killed(path, 3)
    assert (path / "store.db-wal").stat().st_size > 0
    return path


@pytest.fixture
def log(killed_template: Path, path: Path) -> Path:
    shutil.copytree(killed_template, path)
    return path / "store.db-wal"


def assert_refused(path: Path, lost: str) -> None:
    with pytest.raises(StoreCorruptError, match=f"the last {lost} of [0-9]+ commits are lost.*backup.*remove"):
        Store.open(path)


def test_a_killed_writer_loses_nothing(log: Path) -> None:
    with Store.open(log.parent) as store:
        assert store.count() == 23 and store.verify().ok


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_altered_byte_in_the_log(log: Path, share: float) -> None:
    flip_byte(log, int(share * log.stat().st_size))
    assert_refused(log.parent, "[1-3]")
    assert_refused(log.parent, "[1-3]")  # SQLite has removed the log meanwhile


def test_a_log_cut_short(log: Path) -> None:
    os.truncate(log, log.stat().st_size - 1)
    assert_refused(log.parent, "1")


def test_a_log_that_is_gone(log: Path) -> None:
    log.unlink()
    assert_refused(log.parent, "3")


def test_an_older_database_in_its_place(filled: Store, tmp_path: Path) -> None:
    shutil.copytree(filled.path, tmp_path / "copy")
    filled.delete(["s003"])
    filled.close()
    shutil.copy(tmp_path / "copy" / "store.db", filled.path / "store.db")
    assert_refused(filled.path, "1")


def test_a_process_that_is_open_notices_as_well(filled: Store, tmp_path: Path) -> None:
    older = (filled.path / "store.db").read_bytes()
    filled.delete(["s003"])
    with Store.open(filled.path) as other:
        filled.close()
        assert other.count() == 19
    with Store.open(filled.path) as other:
        other.close()  # it connects again when it is used
        (filled.path / "store.db").write_bytes(older)
        for attempt in (other.count, lambda: other.delete(["s004"])):
            with pytest.raises(StoreCorruptError, match="lost"):
                attempt()


def test_going_on_without_the_lost_commits(log: Path) -> None:
    log.unlink()
    (log.parent / COMMITS_NAME).unlink()
    with Store.open(log.parent) as store:
        with store.writer() as writer:
            writer.commit([new_sample("again")], random_vectors(1))
        assert store.count() == 21 and store.verify().ok
        assert len(list((store.path / "segments").iterdir())) == 4
    Store.open(log.parent).close()


@pytest.mark.parametrize(("when", "acknowledged"), [("before", 1), ("after", 2)])
def test_killed_around_the_acknowledgement(filled: Store, when: str, acknowledged: int) -> None:
    before = filled._database.commits.acknowledged()
    filled.close()
    killed(filled.path, 2, when)
    assert CommitCounter(filled.path).acknowledged() == before + acknowledged
    with Store.open(filled.path) as store:
        assert store.count() == 22 and store.verify().ok
        store.delete(["s001"])
        assert store._database.commits.acknowledged() == before + 3


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"\0" * 8192, os.urandom(8192)])
def test_a_counter_that_cannot_be_read_is_made_again(filled: Store, content: bytes) -> None:
    before = filled._database.commits.acknowledged()
    (filled.path / COMMITS_NAME).write_bytes(content)
    assert filled.count() == 20
    assert any(COMMITS_NAME in problem for problem in filled.verify().problems)
    filled.delete(["s001"])
    assert filled._database.commits.acknowledged() == before + 1
    assert filled.verify().ok


def test_a_torn_write_spoils_the_older_number_only(filled: Store) -> None:
    commits = filled._database.commits.acknowledged()
    for number in range(5):
        filled.delete([f"s{number:03}"])
        commits += 1
        content = bytearray((filled.path / COMMITS_NAME).read_bytes())
        place = 4096 * (commits % 2)
        content[place : place + 4096] = b"\xff" * 4096
        (filled.path / COMMITS_NAME).write_bytes(content)
        assert filled._database.commits.acknowledged() in (commits - 1, commits)
        assert filled.count() == 19 - number


def test_a_counter_that_cannot_be_written_does_not_undo_the_commit(filled: Store, monkeypatch, caplog) -> None:
    def refusing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(commit_counter.os, "pwrite", refusing)
    assert filled.delete(["s001"]) == 1
    assert "the commit itself is safe" in caplog.text
    assert filled.count() == 19


def test_a_store_that_was_copied_without_its_counter(filled: Store) -> None:
    (filled.path / COMMITS_NAME).unlink()
    assert filled.verify().ok
    filled.delete(["s001"])
    assert filled._database.commits.acknowledged() > 0


def test_compaction_keeps_the_number(filled: Store) -> None:
    filled.delete(where=["topic=odd"])
    filled.compact()
    filled.close()
    with Store.open(filled.path) as store:
        assert store.count() == 10 and store.verify().ok

"""Links in a store: a stranger's store leads no command elsewhere, and a copy by hard links keeps its contents."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from rapidin.errors import StoreError
from rapidin.storage import Store, export_vectors, recode
from tests.storage.stores import random_vectors

NAMES = [
    *("store.db", "store.db-wal", "store.db-shm", "store.db-journal", "store.commits", ".store.commits.tmp"),
    *("writer.json", "writer.lock", "readers.lock", "readers.3.lock", ".readers.tmp", "segments", "indexes"),
    *("curvature", "evaluation"),
]


def linked(store: Path, name: str, target: Path) -> None:
    place = store / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_no_command_follows_a_link(filled: Store, tmp_path: Path, name: str, kind: str) -> None:
    victim = tmp_path / "victim"
    if kind == "file":
        victim.write_text("precious")
    elif kind == "folder":
        shutil.copytree(filled.path / "segments", victim)
    filled.close()
    linked(filled.path, name, victim)
    before = sorted(victim.iterdir()) if kind == "folder" else None
    for attempt in (lambda: Store.open(filled.path), lambda: filled.delete(["s001"]), filled.compact):
        with pytest.raises(StoreError, match=name.replace(".", r"\.")):
            attempt()
    if kind == "file":
        assert victim.read_text() == "precious"
    elif kind == "folder":
        assert sorted(victim.iterdir()) == before
    else:
        assert not victim.exists()


def test_the_store_itself_may_be_reached_by_a_link(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(filled.path)
    with Store.open(tmp_path / "elsewhere") as store:
        assert store.delete(["s001"]) == 1
        assert store.verify().ok


def test_garbage_is_never_removed_from_another_store(filled: Store, tmp_path: Path) -> None:
    other = Path(shutil.copytree(filled.path, tmp_path / "other"))
    filled.close()
    connection = sqlite3.connect(filled.path / "store.db")
    with connection:
        for table in ("sample_metadata", "samples", "derived_parts", "derived", "segments"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()
    linked(filled.path, "segments", other / "segments")
    files = sorted((other / "segments").iterdir())
    with pytest.raises(StoreError, match="symbolic link"), Store.open(filled.path) as store:
        store.compact()
    assert sorted((other / "segments").iterdir()) == files
    with Store.open(other) as store:
        assert store.verify().ok


def test_a_copy_by_hard_links_keeps_its_contents(filled: Store, tmp_path: Path) -> None:
    """As ``cp -al`` makes it; both can be read, and neither is written to."""
    copy = tmp_path / "copy"
    shutil.copytree(filled.path, copy, copy_function=os.link)
    filled.close()
    for path in (filled.path, copy):
        with Store.open(path) as store:
            for attempt in (lambda store=store: store.delete(["s001"]), store.compact):
                with pytest.raises(StoreError, match=r"hard links.*cp -a"):
                    attempt()
            with store.snapshot() as snapshot:
                assert len(snapshot.search(random_vectors(1), 30).largest[0]) == 20
            assert store.verify().ok
    shutil.copytree(copy, tmp_path / "own")
    with Store.open(tmp_path / "own") as store:
        assert store.delete(["s001"]) == 1
    with Store.open(copy) as store:
        assert store.count() == 20


def test_segments_may_be_shared_by_hard_links(filled: Store, tmp_path: Path) -> None:
    """They never change, so a backup may share them."""
    copy = tmp_path / "copy"
    shutil.copytree(filled.path, copy)
    for file in (copy / "segments").iterdir():
        file.unlink()
        os.link(filled.path / "segments" / file.name, file)
    filled.delete(["s001"])
    filled.compact()
    with Store.open(copy) as store:
        assert store.count() == 20 and store.verify().ok


@pytest.mark.parametrize("command", ["export", "recode"])
def test_the_place_beside_a_target_is_not_followed(filled: Store, tmp_path: Path, command: str) -> None:
    """Anybody can make a link in a shared directory, and remains there are removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    (tmp_path / "target.partial").symlink_to(victim)
    with pytest.raises(StoreError, match=r"target\.partial"):
        if command == "export":
            export_vectors(filled, tmp_path / "target")
        else:
            recode(filled.path, tmp_path / "target", 4)
    assert (victim / "precious").read_text() == "x"

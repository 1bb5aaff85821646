"""Lock files of a stranger's store: they stop neither readers nor the removal of garbage."""

from __future__ import annotations

import os

import pytest

from rapidin.storage import Store
from tests.storage.stores import random_vectors, segment_files

RECORDS = {
    "nested": b"[" * 200_000,
    "no JSON": b"\xff\xfe",
    "a list": b"[1]",
    "large": b'{"a": 1' + b" " * 2**25 + b"}",
    "odd values": b'{"segments/x.faiss": {"a": []}, "../../x": 1}',
}
NUMBERS = ["7", "999999999999999999", "1000000000000000000", "1" + "0" * 200]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("record", RECORDS)
def test_garbage_is_removed_all_the_same(filled: Store, number: str, record: str) -> None:
    (filled.path / f"readers.{number}.lock").write_bytes(RECORDS[record])
    with filled.snapshot() as snapshot:
        filled.delete([f"s{i:03}" for i in range(8)])
        filled.compact()
        assert len(snapshot.search(random_vectors(1), 30).largest[0]) == 20
    with filled.writer():
        pass
    named = {segment.name for segment in filled.info().segments}
    assert {file.name for file in segment_files(filled)} == named
    with filled.snapshot() as snapshot:
        assert snapshot.samples == 12


def test_a_pipe_in_place_of_a_lock_does_not_stop_anybody(filled: Store) -> None:
    for name in ("readers.5.lock", "store.commits"):
        (filled.path / name).unlink(missing_ok=True)
        os.mkfifo(filled.path / name)
    with filled.snapshot() as snapshot:
        assert snapshot.samples == 20
    (filled.path / "store.commits").unlink()
    assert filled.delete(["s001"]) == 1

"""A file's checksum is computed once while the file does not change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rapidin.errors import StoreCorruptError
from rapidin.storage.vectors import VerifiedFiles
from rapidin.storage.vectors.segment_writing import file_checksum


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    checksum, size = file_checksum(path)
    files = VerifiedFiles()
    assert [files.verify(path, size, checksum, "advice") for _ in range(2)] == [True, False]
    assert files.verify(path, size, checksum, "advice", recheck=True)
    assert VerifiedFiles().verify(path, size, checksum, "advice")
    os.utime(path, (0, 0))
    assert files.verify(path, size, checksum, "advice")


def test_a_file_that_differs_is_refused_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    checksum, size = file_checksum(path)
    files = VerifiedFiles()
    files.verify(path, size, checksum, "advice")
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match=r"file: its checksum is wrong, .*; advice"):
            files.verify(path, size, "0" * 32, "advice")
    with pytest.raises(StoreCorruptError, match="10 bytes instead of 11; advice"):
        files.verify(path, 11, checksum, "advice")
    path.unlink()
    with pytest.raises(StoreCorruptError, match="missing; advice"):
        files.verify(path, size, checksum, "advice")

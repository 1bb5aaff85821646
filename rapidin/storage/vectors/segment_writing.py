"""Writing segments: immutable FAISS files of coded vectors.

Each step of writing is a function, so that a test can kill the process between any two: `write_temporary`,
`sync_file`, `publish`, `sync_directory`, `describe`. A segment counts only once the database names it; `garbage`
deletes files that it does not name. `segments` opens what was written.

n samples · K numbers in a vector.
"""

from __future__ import annotations

import shutil
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from rapidin.errors import StoreSpaceError
from rapidin.settings import CODEC_OF_BITS
from rapidin.storage.store_files import SEGMENTS_NAME, file_errors
from rapidin.storage.vectors.codecs import Codec, load_faiss
from rapidin.support import sync, write_content

SUFFIX = ".faiss"
_CHUNK_BYTES = 2**24
_HEADER_BYTES = 4096
"""Upper bound of the bytes that FAISS writes before the codes."""


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """The record of a segment in the database; `id` is the id of its row, or None before it is recorded."""

    id: int | None
    name: str
    rows: int
    bytes: int
    checksum: str
    codec: str = CODEC_OF_BITS[16]


def new_name() -> str:
    """Make a file name that no other segment has; names sort by time of creation."""
    return f"{time.time_ns():016x}-{uuid.uuid4().hex[:16]}{SUFFIX}"


def temporary_path(store: Path, name: str, folder: str = SEGMENTS_NAME) -> Path:
    """Return the temporary path that the file `name` of a folder of the store is written to at first."""
    return store / folder / f".{name}.tmp"


def check_space(store: Path, rows: int, row_bytes: int, more: int = 0) -> None:
    """Check that a segment of `rows` coded vectors, and `more` bytes beside it, fit on the disk.

    Raises:
        StoreSpaceError: they do not fit.
    """
    with file_errors(store):
        free = shutil.disk_usage(store).free
    needed = rows * row_bytes + _HEADER_BYTES + more
    if needed > free:
        raise StoreSpaceError(
            f"{store}: {needed:,} bytes are needed and {free:,} bytes are free on its disk: make room and run the "
            "same command again"
        )


def coded(
    codec: Codec, vectors: NDArray[np.float32], scales: NDArray[np.float32]
) -> tuple[Any, NDArray[np.float32]]:
    """Code vectors [n, K]; return a FAISS index of the codes, and factors [n] of their scores."""
    index = codec.new_index(vectors.shape[1])
    kept = np.empty(len(vectors), np.float32)
    step = max(1, _CHUNK_BYTES // (4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):  # in pieces, so that there is never a second copy of all vectors
        piece = slice(start, start + step)
        codes, kept[piece] = codec.encode(index, vectors[piece], scales[piece])
        index.add_sa_codes(codes)
    return index, kept


def write_temporary(store: Path, name: str, index: Any, folder: str = SEGMENTS_NAME) -> None:
    """Write a FAISS index of coded vectors to the temporary file of `name` in a folder of the store.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    path = temporary_path(store, name, folder)
    with file_errors(path):
        path.parent.mkdir(exist_ok=True)
        write_content(path, partial(_write_index, index))


def _write_index(index: Any, file: BinaryIO) -> None:
    # FAISS writes through Python's file, because its own turns a full disk into a RuntimeError, or ignores it at
    # close.
    writer = load_faiss().PyCallbackIOWriter(file.write, _CHUNK_BYTES)
    load_faiss().write_index(index, writer)
    del writer  # the writer flushes its buffer


def sync_file(store: Path, name: str, folder: str = SEGMENTS_NAME) -> None:
    """Wait until the bytes of the temporary file are on disk."""
    path = temporary_path(store, name, folder)
    with file_errors(path):
        sync(path)


def publish(store: Path, name: str, folder: str = SEGMENTS_NAME) -> None:
    """Give the temporary file its final name."""
    path = temporary_path(store, name, folder)
    with file_errors(path):
        path.rename(path.parent / name)


def sync_directory(store: Path, folder: str = SEGMENTS_NAME) -> None:
    """Wait until the final name is on disk."""
    directory = store / folder
    with file_errors(directory):
        sync(directory)


def describe(store: Path, name: str, rows: int, codec: Codec, dimension: int) -> SegmentRecord:
    """Make the record of the segment file `name`, with size and checksum of its bytes on disk.

    Raises:
        StoreSpaceError: the file is shorter than its vectors.
    """
    checksum, size = written(store / SEGMENTS_NAME / name, rows * codec.row_bytes(dimension) + 1)
    return SegmentRecord(None, name, rows, size, checksum, codec.name)


def write_segment(store: Path, index: Any, codec: Codec) -> SegmentRecord:
    """Take all steps of writing a FAISS index of coded vectors, and return the record for the database.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    name = new_name()
    write_temporary(store, name, index)
    sync_file(store, name)
    publish(store, name)
    sync_directory(store)
    return describe(store, name, index.ntotal, codec, index.d)


def written(path: Path, least: int) -> tuple[str, int]:
    """Return checksum and size of a file that was just written, as `file_checksum` gives them.

    Raises:
        StoreSpaceError: the file has fewer than `least` bytes.
    """
    with file_errors(path):
        checksum, size = file_checksum(path)
    if size < least:
        raise StoreSpaceError(
            f"{path}: only {size:,} bytes were written; check the disk and run the same command again"
        )
    return checksum, size


def file_checksum(path: Path) -> tuple[str, int]:
    """Return the XXH3-128 of the file, hexadecimal, and its size in bytes."""
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(_CHUNK_BYTES)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            size += count
    return str(digest.hexdigest()), size

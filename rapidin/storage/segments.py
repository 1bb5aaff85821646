"""Segments: immutable FAISS files of half-precision vectors; the only place where faiss is imported.

Writing goes in steps, each a function of its own, so that a test can kill the process between any two:
`write_temporary`, `sync_file`, `publish`, `sync_directory`, `describe`. A segment counts only once the database
names it; `remove_garbage` deletes what it does not name.

Reading maps the file into memory. FAISS files have no checksum and FAISS may abort the process on a damaged
one, so a file's size and checksum are compared with the database's before FAISS sees it.

n samples · K numbers in a vector.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from rapidin.errors import DependencyError, StoreCorruptError, StoreFormatError, StoreSpaceError
from rapidin.storage.files import SEGMENTS_NAME, file_errors
from rapidin.storage.schema import CODEC

SUFFIX = ".faiss"
BYTES_PER_NUMBER = 2
_CHUNK_BYTES = 2**24
_HEADER_BYTES = 4096
"""More than FAISS writes before the codes."""
_ADVICE = (
    "restore it from a backup, or delete its samples (rapidin delete STORE --where segment={}) and ingest again"
)

_verified: dict[Path, tuple[int, int, int, str]] = {}
"""Files whose checksum this process has compared: size, time of change, inode, checksum."""
_verified_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What the database says about a segment; `id` is its row's, None before there is one."""

    id: int | None
    name: str
    rows: int
    bytes: int
    checksum: str
    codec: str = CODEC


def load_faiss() -> Any:
    """The faiss module.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(
            "faiss is not installed: pip install 'rapidin[cpu]' (or 'rapidin[gpu]' with an NVIDIA GPU)"
        ) from error
    return faiss


def new_name() -> str:
    """A file name that no other segment has; names sort by time of creation."""
    return f"{time.time_ns():016x}-{uuid.uuid4().hex[:16]}{SUFFIX}"


def temporary_path(store: Path, name: str) -> Path:
    """Where the segment `name` is written before it counts."""
    return store / SEGMENTS_NAME / f".{name}.tmp"


def check_space(store: Path, rows: int, dimension: int, free: int) -> None:
    """Check that a segment of `rows` vectors fits into `free` bytes.

    Raises:
        StoreSpaceError: it does not.
    """
    needed = rows * dimension * BYTES_PER_NUMBER + _HEADER_BYTES
    if needed > free:
        raise StoreSpaceError(
            f"{store}: {needed:,} bytes are needed and {free:,} are free; free some and run the same command again"
        )


def write_temporary(store: Path, name: str, vectors: NDArray[np.float32], scales: NDArray[np.float32]) -> None:
    """Write the vectors [n, K], each divided by its scale [n], to the temporary file of segment `name`.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    faiss = load_faiss()
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    step = max(1, _CHUNK_BYTES // (4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):  # in pieces, so that no second copy of all is held
        index.add(vectors[start : start + step] / scales[start : start + step, None])
    path = temporary_path(store, name)
    with file_errors(path):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            # Through Python's file, because FAISS turns "disk full" into a RuntimeError and ignores it at close.
            writer = faiss.PyCallbackIOWriter(file.write, _CHUNK_BYTES)
            faiss.write_index(index, writer)
            del writer  # hands over what it still buffers


def sync_file(store: Path, name: str) -> None:
    """Have the temporary file's bytes on disk before anything names them."""
    path = temporary_path(store, name)
    with file_errors(path):
        _sync(path)


def publish(store: Path, name: str) -> None:
    """Give the temporary file its final name."""
    path = temporary_path(store, name)
    with file_errors(path):
        path.rename(path.parent / name)


def sync_directory(store: Path) -> None:
    """Have the final name on disk, too."""
    directory = store / SEGMENTS_NAME
    with file_errors(directory):
        _sync(directory)


def describe(store: Path, name: str, rows: int, dimension: int) -> SegmentRecord:
    """Size and checksum of the segment file `name`, from its bytes on disk.

    Raises:
        StoreSpaceError: the file is shorter than its vectors.
    """
    path = store / SEGMENTS_NAME / name
    with file_errors(path):
        checksum, size = _checksum(path)
    if size <= rows * dimension * BYTES_PER_NUMBER:
        raise StoreSpaceError(f"{path}: only {size:,} bytes were written; look after the disk and run again")
    return SegmentRecord(None, name, rows, size, checksum)


def remove_garbage(store: Path, named: Collection[str]) -> list[str]:
    """Delete segment files, temporary ones too, that are not in `named`; their names. Only for the writer."""
    directory = store / SEGMENTS_NAME
    removed = []
    with file_errors(directory):
        directory.mkdir(exist_ok=True)
        for path in sorted(directory.iterdir()):
            ours = path.suffix == SUFFIX or (path.name.startswith(".") and path.name.endswith(f"{SUFFIX}.tmp"))
            if ours and path.name not in named:
                path.unlink()
                removed.append(path.name)
    return removed


class Segment:
    """An open segment: vectors on disk, mapped into memory, decoded on demand.

    Attributes:
        path: of the file.
        rows: vectors in it.
    """

    def __init__(self, path: Path, record: SegmentRecord, dimension: int) -> None:
        """Map the file at `path`; use `open_segment`, which checks it first.

        Raises:
            StoreCorruptError: what is in it is not what `record` says.
        """
        faiss = load_faiss()
        self.path = path
        self.rows = record.rows
        try:
            # Never add to this index: on a mapped one that aborts the process.
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise StoreCorruptError(
                f"{path}: FAISS cannot read it ({error}); {_ADVICE.format(record.name)}"
            ) from error
        index = self._index
        if not (
            isinstance(index, faiss.IndexScalarQuantizer)
            and index.sq.qtype == faiss.ScalarQuantizer.QT_fp16
            and index.metric_type == faiss.METRIC_INNER_PRODUCT
            and (index.d, index.ntotal) == (dimension, record.rows)
            and index.code_size == dimension * BYTES_PER_NUMBER
            and index.codes.size() == record.rows * index.code_size
        ):
            raise StoreCorruptError(
                f"{path}: it does not hold {record.rows} half-precision vectors of {dimension} numbers; "
                f"{_ADVICE.format(record.name)}"
            )
        codes = faiss.rev_swig_ptr(index.codes.data(), index.codes.size())
        self._codes: NDArray[np.uint8] = codes.reshape(record.rows, index.code_size)

    def decode(self, positions: NDArray[np.int64], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors at the ascending `positions` [m], in the first m rows of `out` [≥ m, K].

        Raises:
            StoreCorruptError: a position is not in the segment.
        """
        first, last = int(positions[0]), int(positions[-1])
        if first < 0 or last >= self.rows:
            raise StoreCorruptError(
                f"{self.path}: it has {self.rows} vectors, but store.db names positions {first} to {last}; "
                "restore store.db from a backup"
            )
        dense = last - first + 1 == len(positions)
        codes = self._codes[first : last + 1] if dense else self._codes[positions]
        vectors = out[: len(positions)]
        self._index.sa_decode(codes, vectors)
        return vectors


def open_segment(store: Path, record: SegmentRecord, dimension: int, recheck: bool = False) -> Segment:
    """Check a segment's file against the database and open it.

    Args:
        store: directory of the store.
        record: what the database says.
        dimension: K.
        recheck: compute the checksum even if this process has done so before.

    Raises:
        StoreCorruptError: the file is missing, of another size, altered or no such segment.
        StoreFormatError: its vectors are coded in a way that this rapidin does not know.
    """
    if Path(record.name).name != record.name:
        raise StoreCorruptError(f"store.db: segment name {record.name!r} leads elsewhere; restore store.db")
    path = store / SEGMENTS_NAME / record.name
    if record.codec != CODEC:
        raise StoreFormatError(f"{path}: vectors coded as {record.codec!r} are unknown here; upgrade rapidin")
    _verify_bytes(path, record, recheck)
    return Segment(path, record, dimension)


def _verify_bytes(path: Path, record: SegmentRecord, recheck: bool) -> None:
    """Compare size and checksum; the checksum only once in a process unless the file changes."""
    with file_errors(path):
        if not path.is_file():
            raise StoreCorruptError(f"{path}: the file is missing; {_ADVICE.format(record.name)}")
        status = path.stat()
        if status.st_size != record.bytes:
            raise StoreCorruptError(
                f"{path}: it has {status.st_size:,} bytes instead of {record.bytes:,}; "
                f"{_ADVICE.format(record.name)}"
            )
        seen = (status.st_size, status.st_mtime_ns, status.st_ino, record.checksum)
        with _verified_lock:
            known = _verified.get(path) == seen
        if known and not recheck:
            return
        checksum, _ = _checksum(path)
    if checksum != record.checksum:
        with _verified_lock:
            _verified.pop(path, None)
        raise StoreCorruptError(
            f"{path}: its checksum is wrong, so it was altered or damaged; {_ADVICE.format(record.name)}"
        )
    with _verified_lock:
        _verified[path] = seen


def _checksum(path: Path) -> tuple[str, int]:
    """XXH3-128 of the file, hexadecimal, and its size in bytes."""
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(_CHUNK_BYTES)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            size += count
    return str(digest.hexdigest()), size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

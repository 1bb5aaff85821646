"""Segments: files of coded vectors, mapped into memory, which are scored in place or decoded on demand.

FAISS files have no checksum, and FAISS may abort the process on a damaged one. So a file's size and checksum are
compared with those in the database before FAISS reads it.

q queries · m rows of a request · K numbers in a vector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError, StoreFormatError
from rapidin.storage.store_files import SEGMENTS_NAME, file_errors
from rapidin.storage.vectors.checksum_cache import VERIFIED_FILES
from rapidin.storage.vectors.codecs import Codec, codec_named, load_faiss
from rapidin.storage.vectors.segment_writing import SegmentRecord

_ADVICE = (
    "restore it from a backup, or delete its samples (rapidin delete STORE --where segment={}) and ingest again"
)

_BLOCK_BYTES = 2**25
"""Maximum number of bytes of a block of decoded vectors in single precision."""

_ANNOUNCED_BYTES = 2**17
"""Number of bytes that the system is asked to read at a time; it never reads more than its read-ahead."""


class Segment:
    """An open segment.

    Attributes:
        path: path of the file.
        rows: number of vectors in it.
        codec: codec of its vectors.
        dimension: K.
        codes: mapped codes [rows, bytes of a coded vector], which must not be written to.
    """

    def __init__(self, path: Path, record: SegmentRecord, codec: Codec, dimension: int, advice: str) -> None:
        """Map the file at `path`. Callers use `open_segment`, which checks it first; `advice` ends error messages.

        Raises:
            StoreCorruptError: the file does not hold what `record` says.
        """
        faiss = load_faiss()
        self.path = path
        self.rows = record.rows
        self.codec = codec
        self.dimension = dimension
        try:
            # Never add to this index: adding to a mapped index aborts the process.
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise StoreCorruptError(f"{path}: FAISS cannot read it ({error}); {advice}") from error
        row_bytes = codec.row_bytes(dimension)
        if not (
            codec.fits(self._index, dimension)
            and self._index.ntotal == record.rows
            and self._index.codes.size() == record.rows * row_bytes
        ):
            raise StoreCorruptError(
                f"{path}: it does not hold {record.rows} vectors of {dimension} numbers in {codec.bits} bits; "
                f"{advice}"
            )
        self._header_bytes = codec.codes_offset(dimension)
        # FAISS maps the file for random access, which makes reading in order from a disk fifteen times slower.
        with file_errors(path):
            codes = np.memmap(path, np.uint8, "r", self._header_bytes, (record.rows, row_bytes))
        self.codes: NDArray[np.uint8] = np.asarray(codes)

    def decode(self, positions: NDArray[np.int64], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode vectors, in the coordinates of the codec, into the first m rows of `out`, and return these.

        Args:
            positions: ascending positions [m] in the segment.
            out: array [≥ m, K] that is written to.

        Raises:
            StoreCorruptError: a position is not in the segment.
        """
        vectors = out[: len(positions)]
        self._index.sa_decode(self.selected(positions), vectors)
        return vectors

    def decoded(self, positions: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Decode vectors as `decode` does, in blocks [≤ m, K] of bounded size; the next block overwrites the last.

        Raises:
            StoreCorruptError: a position is not in the segment.
        """
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        buffer = np.empty((min(step, len(positions)), self.dimension), np.float32)
        for start in range(0, len(positions), step):
            yield self.decode(positions[start : start + step], buffer)

    def selected(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the codes at ascending `positions` [m]: mapped bytes if the positions are consecutive, else a
        copy.

        Raises:
            StoreCorruptError: a position is not in the segment.
        """
        first, last = self.range_of(positions)
        dense = last - first + 1 == len(positions)
        return self.codes[first : last + 1] if dense else self.codes[positions]

    def announce(self, positions: NDArray[np.int64]) -> None:
        """Ask the system to read the codes at ascending `positions` from the disk if they are not in memory."""
        if not hasattr(os, "posix_fadvise"):
            return
        first, last = self.range_of(positions)
        row_bytes = self.codes.shape[1]
        # This is only advice, so a removed file, which is still mapped, is no error.
        with suppress(OSError), self.path.open("rb") as file:
            begin = self._header_bytes + first * row_bytes
            for offset in range(begin, begin + (last - first + 1) * row_bytes, _ANNOUNCED_BYTES):
                os.posix_fadvise(file.fileno(), offset, _ANNOUNCED_BYTES, os.POSIX_FADV_WILLNEED)

    def range_of(self, positions: NDArray[np.int64]) -> tuple[int, int]:
        """Check ascending `positions` [m], and return the first and the last.

        Raises:
            StoreCorruptError: a position is not in the segment.
        """
        first, last = int(positions[0]), int(positions[-1])
        if first < 0 or last >= self.rows:
            raise StoreCorruptError(
                f"{self.path}: it has {self.rows} vectors, but store.db names positions {first} to {last}; "
                "restore store.db from a backup"
            )
        return first, last


SegmentSource = Callable[[int], Segment]
"""Function from a database id to the open segment; raises StoreCorruptError if it is damaged or unknown."""


def open_segment(
    store: Path,
    record: SegmentRecord,
    dimension: int,
    recheck: bool = False,
    folder: str = SEGMENTS_NAME,
    advice: str | None = None,
    kept: Segment | None = None,
) -> Segment:
    """Check a segment's file against the database and open it.

    Args:
        store: directory of the store.
        record: record of the segment in the database.
        dimension: K.
        recheck: whether the checksum is computed even if this process has done so before.
        folder: folder of the store where the file lies.
        advice: advice for a damaged file, which ends error messages; None gives the one for a segment.
        kept: the same segment, opened before; it is returned if the file has not changed since it was checked.

    Raises:
        StoreCorruptError: the file is missing, altered, of another size, or no such segment.
        StoreFormatError: this rapidin does not know the codec of its vectors.
    """
    path = place_of(store, folder, record.name)
    advice = advice or _ADVICE.format(record.name)
    try:
        codec = codec_named(record.codec)
    except StoreFormatError as error:
        raise StoreFormatError(f"{path}: {error}") from error
    if record.rows * codec.row_bytes(dimension) > record.bytes:  # before memory is taken for a stranger's K
        raise StoreCorruptError(
            f"{path}: {record.bytes:,} bytes cannot hold {record.rows} vectors of {dimension} numbers; {advice}"
        )
    changed = VERIFIED_FILES.verify(path, record.bytes, record.checksum, advice, recheck)
    return Segment(path, record, codec, dimension, advice) if kept is None or changed else kept


def place_of(store: Path, folder: str, name: str) -> Path:
    """Return the path of the file `name` in a folder of the store.

    Raises:
        StoreCorruptError: the name leads out of the folder.
    """
    if Path(name).name != name:
        raise StoreCorruptError(f"store.db: file name {name!r} leads elsewhere; restore store.db from a backup")
    return store / folder / name

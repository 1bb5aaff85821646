"""What of an index is as it was written, so that only the rest need be made anew.

Everything is compared that a search compares: rows of the database, sizes, checksums and shapes of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived.derived_rows import IndexRecord, PartRecord, WrittenFile, check_row
from rapidin.storage.derived.indexes import IvfParameters, Progress, RabitqParameters, from_text, part_reading
from rapidin.storage.store_files import INDEXES_NAME
from rapidin.storage.vectors import SegmentRecord


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        sound: the index with those of its parts that are; None: all of it has to be made anew.
        damaged: database ids of the segments whose parts are not; a segment may no longer be there.
        problems: files and rows of the database that were missing, damaged or altered.
    """

    sound: IndexRecord | None
    damaged: tuple[int, ...] = ()
    problems: int = 0


def inspect(
    store: Path,
    record: IndexRecord,
    segments: Mapping[int, SegmentRecord],
    dimension: int,
    progress: Progress,
) -> Inspection:
    """Read an index and tell what of it can be used.

    Args:
        store: directory of the store.
        record: of the index.
        segments: of the store, by database id.
        dimension: K.
        progress: told how many parts were read.

    Raises:
        StoreFormatError: a newer rapidin made it.
    """
    try:
        check_row(store, record)
        if record.kind == "ivf":
            part_reading.load_centroids(
                store, record, from_text(IvfParameters, record.parameters, store), recheck=True
            )
    except StoreCorruptError:
        return Inspection(None, problems=1)
    damaged = []
    for done, part in enumerate(record.parts):
        progress("check", done, len(record.parts))
        try:
            _load(store, record, part, segments.get(part.segment_id), dimension)
        except StoreCorruptError:
            damaged.append(part)
    progress("check", len(record.parts), len(record.parts))
    if any(_is_blocked(store, part.file) for part in damaged):
        return Inspection(None, problems=len(damaged))
    ids = tuple(part.segment_id for part in damaged)
    sound = tuple(part for part in record.parts if part.segment_id not in ids)
    return Inspection(replace(record, parts=sound), ids, len(damaged))


def missing_files(store: Path, record: IndexRecord) -> int:
    """How many of an index's files are not there or have a wrong size; their bytes are not read."""
    return sum(not _is_there(store, file) for file in record.files)


def _load(
    store: Path, record: IndexRecord, part: PartRecord, segment: SegmentRecord | None, dimension: int
) -> None:
    if record.kind == "ivf":
        lists = from_text(IvfParameters, record.parameters, store)
        part_reading.load_lists(store, lists, part, segment, recheck=True)
    else:
        codes = from_text(RabitqParameters, record.parameters, store)
        part_reading.open_codes(store, codes, part, segment, dimension, recheck=True)


def _is_blocked(store: Path, file: WrittenFile) -> bool:
    """Whether something lies in the file's place that a new one cannot replace, so that it needs another name."""
    return isinstance(file.name, str) and (store / INDEXES_NAME / file.name).is_dir()


def _is_there(store: Path, file: WrittenFile) -> bool:
    try:
        path = store / INDEXES_NAME / file.name
        return path.is_file() and path.stat().st_size == file.bytes
    except (TypeError, ValueError, OSError):  # a damaged name, or nobody may look
        return False

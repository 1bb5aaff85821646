"""Checking derived data of any kind, and describing it: for ``verify``, for repair and for ``info``.

A check compares everything that a use of the data compares: rows of the database, and sizes, checksums and shapes
of files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rapidin.errors import StoreCorruptError, StoreFormatError
from rapidin.records import DerivedInfo
from rapidin.storage.derived.derived_files import is_there
from rapidin.storage.derived.derived_kind import DerivedKind, StepProgress, StoreFacts, check_part_row, check_row
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord, WrittenFile
from rapidin.storage.derived.kinds import KINDS, unknown


@dataclass(frozen=True, slots=True)
class Inspection:
    """The state in which derived data was found.

    Attributes:
        sound: record with the parts that are as they were written; None: all of the data has to be made again.
        damaged: database ids of the segments whose parts are damaged; a segment may no longer be there.
        problems: number of files and database rows that were missing, damaged or altered.
    """

    sound: DerivedRecord | None
    damaged: tuple[int, ...] = ()
    problems: int = 0


def inspect(kind: DerivedKind, store: StoreFacts, record: DerivedRecord, progress: StepProgress) -> Inspection:
    """Read all derived data of a kind and find the parts that can be kept, so that only the others are made again.

    Args:
        kind: kind of the data.
        store: store that it belongs to.
        record: what the database says about it.
        progress: function that is told how many parts were read.

    Raises:
        StoreFormatError: a newer rapidin made it.
    """
    try:
        check_row(store.path, record, kind.title, kind.remedy(store.path))
        kind.check(store, record)
    except StoreCorruptError:
        return Inspection(None, problems=1)
    damaged = []
    for done, part in enumerate(record.parts):
        progress("check", done, len(record.parts))
        try:
            _check_part(kind, store, record, part)
        except StoreCorruptError:
            damaged.append(part)
    progress("check", len(record.parts), len(record.parts))
    if any(part.file is not None and _is_blocked(store.path / kind.folder, part.file) for part in damaged):
        return Inspection(None, problems=len(damaged))
    ids = tuple(part.segment_id for part in damaged)
    sound = tuple(part for part in record.parts if part.segment_id not in ids)
    return Inspection(replace(record, parts=sound), ids, len(damaged))


def checks(store: StoreFacts, record: DerivedRecord) -> Iterator[Callable[[], object]]:
    """Yield checks of the row and of each file of derived data, which raise a `StoreError` about what is wrong."""
    kind = KINDS.get(record.kind)
    if kind is None:
        yield partial(_refuse_unknown, store.path, record.kind)
        return
    yield partial(check_row, store.path, record, kind.title, kind.remedy(store.path))
    if record.intact:
        yield partial(kind.check, store, record)
        for part in record.parts:
            yield partial(_check_part, kind, store, record, part)


def derived_info(store: StoreFacts, record: DerivedRecord, live: Mapping[int, int]) -> DerivedInfo:
    """Describe derived data and what it covers, from the database and the sizes of files.

    Args:
        store: store that it belongs to.
        record: what the database says about it.
        live: number of live samples of each segment that has any.
    """
    samples = sum(live.values())
    covered = sum(live.get(part.segment_id, 0) for part in record.parts)
    kind = KINDS.get(record.kind)
    if kind is None:
        advice = "this rapidin does not know it and leaves it alone: upgrade rapidin"
        return DerivedInfo(record.kind, covered, samples - covered, record.bytes, {}, advice)
    command = f"'{kind.command(store.path)}'"
    if not record.intact:
        advice = f"its row in store.db was altered: {command} builds it again"
        return DerivedInfo(record.kind, covered, samples - covered, 0, {}, advice)
    told: str | None
    missing = sum(not is_there(store.path / kind.folder, file) for file in record.files)
    if missing:
        told = f"{missing:,} of its {len(record.files):,} files are missing or damaged: {command} makes them again"
    else:
        try:
            told = kind.advice(store, record, covered, samples)
        except StoreFormatError as error:
            told = str(error)
    try:
        parameters = json.loads(record.parameters)
    except (ValueError, RecursionError):  # a stranger's row may have the right checksum
        parameters = {}
    return DerivedInfo(record.kind, covered, samples - covered, record.bytes, parameters, told)


def _check_part(kind: DerivedKind, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
    segment = store.segments.get(part.segment_id)
    check_part_row(store.path, part, segment, kind.title, kind.remedy(store.path))
    kind.check_part(store, record, part)


def _refuse_unknown(store: Path, name: str) -> None:
    raise StoreFormatError(unknown(store, name))


def _is_blocked(folder: Path, file: WrittenFile) -> bool:
    """Return whether a directory lies in the file's place, so that a new file needs another name."""
    return isinstance(file.name, str) and (folder / file.name).is_dir()

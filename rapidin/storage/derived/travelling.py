"""Derived data that copies and exports of a store take with them.

A kind travels if it depends on samples alone, and neither on the segments that they lie in nor on the codec of the
vectors. All of it is one file and the parameters in its record. Data that is damaged, or of a newer rapidin,
stays behind, because it can be built again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rapidin.errors import StoreCorruptError, StoreFormatError
from rapidin.storage.catalog import Database, tables
from rapidin.storage.derived import derived_files, derived_records
from rapidin.storage.derived.derived_building import record_step
from rapidin.storage.derived.derived_kind import StoreFacts
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord, WrittenFile
from rapidin.storage.derived.kinds import KINDS


@dataclass(frozen=True, slots=True)
class Travelling:
    """Derived data that can be taken into another store.

    Attributes:
        kind: name of the kind.
        parameters: parameters of its record.
        path: path of its file.
        file: name, size and checksum of the file.
    """

    kind: str
    parameters: str
    path: Path
    file: WrittenFile


def travelling(store: StoreFacts, records: Mapping[str, DerivedRecord]) -> list[Travelling]:
    """Find the sound derived data that can be taken into a copy of a store.

    Args:
        store: the store; its files must stay until the data was taken.
        records: derived data of the store, by the name of the kind.
    """
    found = []
    for name, record in records.items():
        kind = KINDS.get(name)
        if kind is None or not kind.travels or record.file is None or not record.intact:
            continue
        with suppress(StoreCorruptError, StoreFormatError):
            kind.check(store, record)
            path = store.path / kind.folder / record.file.name
            found.append(Travelling(name, record.parameters, path, record.file))
    return found


def take(data: Travelling, path: Path, database: Database) -> None:
    """Copy derived data into a store that holds the samples of the store that it comes from.

    Args:
        data: the data.
        path: directory of the store, whose writer's lock is held.
        database: database of the store.

    Raises:
        StoreCorruptError: the file is not as it was written.
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be read or written.
    """
    kind = KINDS[data.kind]
    file = derived_files.copy_file(data.path, path, kind.folder, data.file.name)
    if file != data.file:
        raise StoreCorruptError(f"{data.path}: it changed while it was copied; {kind.remedy(path)}")
    with database.reading() as session:
        segments = tables.segment_records(session)
        live = tables.live_counts(session)
    parts = [PartRecord(one.id, None, one.rows) for one in segments if one.id is not None and one.id in live]
    record_step(database, derived_records.new_record(data.kind, data.parameters, file), parts, replaces=True)

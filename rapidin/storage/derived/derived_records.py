"""Records of derived data, which are rows of the tables ``derived`` and ``derived_parts``.

This module knows no kinds of derived data; it reads a kind that a newer rapidin wrote like any other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from rapidin.storage.catalog import DerivedPartRow, DerivedRow, tables, text_checksum


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of derived data: its name in the folder of its kind, size, and XXH3-128 checksum."""

    name: str
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class PartRecord:
    """The record in the database of the part that covers one segment.

    Attributes:
        segment_id: database id of the segment.
        file: file of the part; None where the file that all parts share holds what there is to know.
        rows: number of rows of the segment.
    """

    segment_id: int
    file: WrittenFile | None
    rows: int


@dataclass(frozen=True, slots=True)
class DerivedRecord:
    """The record in the database of derived data of one kind.

    Attributes:
        kind: name of the kind.
        parameters: text of a JSON object, which only the kind understands.
        created: time at which it was built, ISO 8601 in UTC.
        file: file that all parts share, None where there is no such file.
        checksum: XXH3-64 of all the above.
        parts: parts in the order of their segments.
    """

    kind: str
    parameters: str
    created: str
    file: WrittenFile | None
    checksum: str
    parts: tuple[PartRecord, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files; those whose size is damaged in the database are left out."""
        return sum(file.bytes for file in self.files if isinstance(file.bytes, int))

    @property
    def files(self) -> tuple[WrittenFile, ...]:
        """All files."""
        shared = () if self.file is None else (self.file,)
        return (*shared, *(part.file for part in self.parts if part.file is not None))

    @property
    def segment_ids(self) -> frozenset[int]:
        """Database ids of the segments that it covers."""
        return frozenset(part.segment_id for part in self.parts)

    @property
    def intact(self) -> bool:
        """Whether the row is as it was written."""
        try:
            return _checksum(self) == self.checksum
        except TypeError:  # a damaged column may come back as bytes, which JSON refuses
            return False


def new_record(kind: str, parameters: str, file: WrittenFile | None) -> DerivedRecord:
    """Return the record of data that is built now."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return _signed(DerivedRecord(kind, parameters, created, file, ""))


def with_parameters(record: DerivedRecord, parameters: str) -> DerivedRecord:
    """Return the record with other parameters."""
    return _signed(replace(record, parameters=parameters))


def read(session: Session) -> dict[str, DerivedRecord]:
    """Read all derived data, by kind, without checking it."""
    parts: dict[int, list[PartRecord]] = {}
    for part in session.scalars(select(DerivedPartRow).order_by(DerivedPartRow.segment_id)):
        file = None if part.file is None else WrittenFile(part.file, part.bytes, part.file_checksum)
        parts.setdefault(part.derived_id, []).append(PartRecord(part.segment_id, file, part.rows))
    found = {}
    for row in session.scalars(select(DerivedRow).order_by(DerivedRow.kind)):
        shared = None if row.file is None else WrittenFile(row.file, row.bytes, row.file_checksum)
        found[row.kind] = DerivedRecord(
            row.kind, row.parameters, row.created, shared, row.checksum, tuple(parts.get(row.id, ()))
        )
    return found


def covered(session: Session) -> dict[str, int]:
    """Return the number of live samples that the data of each kind covers."""
    live = tables.live_counts(session)
    return {
        kind: sum(live.get(part.segment_id, 0) for part in record.parts) for kind, record in read(session).items()
    }


def insert_derived(session: Session, record: DerivedRecord) -> None:
    """Name derived data in place of older data of its kind; `insert_parts` names its parts."""
    delete_derived(session, record.kind)
    session.execute(insert(DerivedRow), _columns(record))


def update_derived(session: Session, record: DerivedRecord) -> None:
    """Change the parameters and the shared file of derived data."""
    row = session.scalars(select(DerivedRow).where(DerivedRow.kind == record.kind)).one()
    for name, value in _columns(record).items():
        setattr(row, name, value)
    session.flush()


def insert_parts(session: Session, kind: str, parts: Iterable[PartRecord]) -> None:
    """Name parts of the data of a kind."""
    derived_id = session.scalars(select(DerivedRow.id).where(DerivedRow.kind == kind)).one()
    rows = [
        {"derived_id": derived_id, "segment_id": part.segment_id, "rows": part.rows} | _file_columns(part.file)
        for part in parts
    ]
    if rows:
        session.execute(insert(DerivedPartRow), rows)


def delete_parts(session: Session, kind: str, segment_ids: Iterable[int]) -> None:
    """Forget the parts of the data of a kind for some segments."""
    derived_id = select(DerivedRow.id).where(DerivedRow.kind == kind).scalar_subquery()
    found = (DerivedPartRow.derived_id == derived_id, DerivedPartRow.segment_id.in_(list(segment_ids)))
    session.execute(delete(DerivedPartRow).where(*found), execution_options={"synchronize_session": False})


def delete_derived(session: Session, kind: str) -> bool:
    """Forget the data of a kind and its parts; return whether there was any."""
    found = session.scalars(delete(DerivedRow).where(DerivedRow.kind == kind).returning(DerivedRow.id))
    return found.first() is not None


def follow_samples(
    session: Session, kinds: Collection[str], sources: Sequence[int], segment_id: int, rows: int
) -> None:
    """Have data of some kinds cover a segment whose samples came from segments that it covers already.

    Args:
        session: session to write with.
        kinds: names of the kinds that know samples wherever they lie.
        sources: database ids of the segments that the samples came from.
        segment_id: database id of the new segment.
        rows: number of its rows.
    """
    for kind, record in read(session).items():
        if kind in kinds and record.segment_ids.issuperset(sources):
            insert_parts(session, kind, [PartRecord(segment_id, None, rows)])


def _signed(record: DerivedRecord) -> DerivedRecord:
    return replace(record, checksum=_checksum(record))


def _checksum(record: DerivedRecord) -> str:
    columns = _columns(record)
    del columns["checksum"]
    return text_checksum(json.dumps(list(columns.values())))


def _columns(record: DerivedRecord) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "parameters": record.parameters,
        "created": record.created,
        **_file_columns(record.file),
        "checksum": record.checksum,
    }


def _file_columns(file: WrittenFile | None) -> dict[str, Any]:
    name, size, checksum = (None, 0, "") if file is None else (file.name, file.bytes, file.checksum)
    return {"file": name, "bytes": size, "file_checksum": checksum}

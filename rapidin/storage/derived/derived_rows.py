"""Rows of the tables ``indexes`` and ``index_parts`` as records, read and written in somebody's transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from rapidin.errors import StoreCorruptError
from rapidin.settings import IndexKind
from rapidin.storage.catalog import DerivedPartRow, DerivedRow, tables, text_checksum
from rapidin.storage.derived.indexes import IvfParameters, RabitqParameters, to_text
from rapidin.storage.vectors import SegmentRecord

KINDS: tuple[IndexKind, ...] = ("ivf", "rabitq")
SUFFIXES: dict[str, str] = {"ivf": ".safetensors", "rabitq": ".faiss"}
"""Of the parts' files."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of an index: name in ``STORE/indexes/``, size, XXH3-128 checksum."""

    name: str
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What the database says about the part that covers one segment of so many rows."""

    segment_id: int
    file: WrittenFile
    rows: int


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """What the database says about an index.

    Attributes:
        kind: one of `KINDS`.
        parameters: JSON text.
        created: when it was trained, ISO 8601 in UTC.
        file: what its parts share, if anything.
        checksum: XXH3-64 of all the above.
        parts: by segment.
    """

    kind: str
    parameters: str
    created: str
    file: WrittenFile | None
    checksum: str
    parts: tuple[PartRecord, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all its files, as far as the database is intact."""
        return sum(file.bytes for file in self.files if isinstance(file.bytes, int))

    @property
    def files(self) -> tuple[WrittenFile, ...]:
        """All of them."""
        shared = () if self.file is None else (self.file,)
        return (*shared, *(part.file for part in self.parts))

    @property
    def intact(self) -> bool:
        """Whether the row is as it was written."""
        try:
            return _checksum(self) == self.checksum
        except TypeError:  # a damaged column may come back as bytes, which JSON refuses
            return False


def new_record(kind: str, parameters: IvfParameters | RabitqParameters, file: WrittenFile | None) -> IndexRecord:
    """The record of an index that is built now."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return _signed(IndexRecord(kind, to_text(parameters), created, file, ""))


def with_parameters(record: IndexRecord, parameters: IvfParameters) -> IndexRecord:
    """The record with other parameters."""
    return _signed(replace(record, parameters=to_text(parameters)))


def part_name(build: str, segment: str, kind: str) -> str:
    """File name of a part; that it holds index and segment shows when a row leads to the wrong file."""
    return f"{build}-{Path(segment).stem}{SUFFIXES[kind]}"


def advice(store: Path, kind: str) -> str:
    """What to do about a damaged index; ends a message."""
    return f"build it again with 'rapidin index {store} --type {kind} --retrain', or search with --exact"


def read(session: Session) -> dict[str, IndexRecord]:
    """All indexes by kind; nothing about them is checked."""
    parts: dict[int, list[PartRecord]] = {}
    for part in session.scalars(select(DerivedPartRow).order_by(DerivedPartRow.segment_id)):
        file = WrittenFile(part.file or "", part.bytes, part.file_checksum)
        parts.setdefault(part.derived_id, []).append(PartRecord(part.segment_id, file, part.rows))
    found = {}
    for row in session.scalars(select(DerivedRow).order_by(DerivedRow.kind)):
        shared = None if row.file is None else WrittenFile(row.file, row.bytes, row.file_checksum)
        found[row.kind] = IndexRecord(
            row.kind, row.parameters, row.created, shared, row.checksum, tuple(parts.get(row.id, ()))
        )
    return found


def covered(session: Session) -> dict[str, int]:
    """How many live samples each index covers."""
    live = tables.live_counts(session)
    return {
        kind: sum(live.get(part.segment_id, 0) for part in record.parts) for kind, record in read(session).items()
    }


def check_row(store: Path, record: IndexRecord) -> None:
    """Check that an index's row is as it was written.

    Raises:
        StoreCorruptError: it is not.
    """
    if not record.intact:
        raise StoreCorruptError(
            f"{store}/store.db: the row of index {record.kind!r} was altered; {advice(store, record.kind)}"
        )


def check_part(
    store: Path, kind: str, build: str, part: PartRecord, segment: SegmentRecord | None
) -> SegmentRecord:
    """Check that a part's row names a part of this index for this segment; the segment.

    Raises:
        StoreCorruptError: it does not.
    """
    typed = isinstance(part.file.bytes, int) and isinstance(part.file.checksum, str)  # SQLite does not see to it
    if (
        not typed
        or segment is None
        or part.rows != segment.rows
        or part.file.name != part_name(build, segment.name, kind)
    ):
        raise StoreCorruptError(
            f"{store}/store.db: the row of a part of index {kind!r} was altered; {advice(store, kind)}"
        )
    return segment


def insert_index(session: Session, record: IndexRecord) -> None:
    """Name an index, instead of the one of its kind that there is; its parts are named by `insert_parts`."""
    delete_index(session, record.kind)
    session.execute(insert(DerivedRow), _columns(record))


def update_index(session: Session, record: IndexRecord) -> None:
    """Change an index's parameters."""
    row = session.scalars(select(DerivedRow).where(DerivedRow.kind == record.kind)).one()
    row.parameters, row.checksum = record.parameters, record.checksum
    session.flush()


def insert_parts(session: Session, kind: str, parts: Iterable[PartRecord]) -> None:
    """Name parts of the index of that kind."""
    derived_id = session.scalars(select(DerivedRow.id).where(DerivedRow.kind == kind)).one()
    rows = [
        {
            "derived_id": derived_id,
            "segment_id": part.segment_id,
            "file": part.file.name,
            "bytes": part.file.bytes,
            "file_checksum": part.file.checksum,
            "rows": part.rows,
        }
        for part in parts
    ]
    if rows:
        session.execute(insert(DerivedPartRow), rows)


def delete_parts(session: Session, kind: str, segment_ids: Iterable[int]) -> None:
    """Forget the parts of the index of that kind for some segments."""
    derived_id = select(DerivedRow.id).where(DerivedRow.kind == kind).scalar_subquery()
    found = (DerivedPartRow.derived_id == derived_id, DerivedPartRow.segment_id.in_(list(segment_ids)))
    session.execute(delete(DerivedPartRow).where(*found), execution_options={"synchronize_session": False})


def delete_index(session: Session, kind: str) -> bool:
    """Forget the index of that kind and its parts; whether there was one."""
    return (
        session.scalars(delete(DerivedRow).where(DerivedRow.kind == kind).returning(DerivedRow.id)).first()
        is not None
    )


def _signed(record: IndexRecord) -> IndexRecord:
    return replace(record, checksum=_checksum(record))


def _checksum(record: IndexRecord) -> str:
    columns = _columns(record)
    del columns["checksum"]
    return text_checksum(json.dumps(list(columns.values())))


def _columns(record: IndexRecord) -> dict[str, Any]:
    shared = record.file or WrittenFile("", 0, "")
    return {
        "kind": record.kind,
        "parameters": record.parameters,
        "created": record.created,
        "file": None if record.file is None else shared.name,
        "bytes": shared.bytes,
        "file_checksum": shared.checksum,
        "checksum": record.checksum,
    }

"""Building, extending, repairing and dropping derived data of any kind, under the writer's lock.

All files of a step are complete and on disk before one transaction names them. Hence a kill leaves at most files
that no row names, and the writer removes these. A build in several steps goes on where it was killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rapidin.errors import DerivedNotFoundError, IndexNotFoundError, StoreCorruptError, StoreEmptyError
from rapidin.records import DerivedReport
from rapidin.settings import ProbeShape
from rapidin.storage.catalog import Database, tables
from rapidin.storage.derived import derived_records
from rapidin.storage.derived.derived_kind import BuildWork, DerivedKind, StepProgress, StoreFacts
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord
from rapidin.storage.derived.inspection import Inspection, derived_info, inspect
from rapidin.storage.scan import Scan
from rapidin.storage.vectors import Codec, Segment, open_segment


def build_derived(
    kind: DerivedKind,
    path: Path,
    database: Database,
    codec: Codec,
    dimension: int,
    probe_shape: ProbeShape,
    scan: Scan,
    options: Any = None,
    retrain: bool = False,
    progress: StepProgress | None = None,
) -> DerivedReport:
    """Build derived data, or extend data that is there to all segments; damaged parts are made again.

    Args:
        kind: kind of the data.
        path: directory of the store.
        database: database of the store.
        codec: codec of its vectors.
        dimension: K.
        probe_shape: shape of a probe of the curvature.
        scan: scan that compares vectors, for kinds that need it.
        options: options of the kind.
        retrain: whether to build all of it again.
        progress: function that is told what is done.

    Raises:
        SettingError: an option cannot be used.
        StoreEmptyError: the store holds no samples.
        StoreCorruptError: a segment is damaged.
        StoreSpaceError: the disk is full.
    """
    started = time.monotonic()
    progress = progress or (lambda *_: None)
    with database.reading() as session:
        rows = tables.searchable_rows(session)
        segments = {record.id or 0: record for record in tables.segment_records(session)}
        there = None if retrain else derived_records.read(session).get(kind.name)
    store = StoreFacts(path, codec, dimension, segments, probe_shape)
    options = kind.settled(store, there if there is not None and there.intact else None, options)
    if not len(rows):
        raise StoreEmptyError(f"{path}: the store holds no samples; ingest some before you build {kind.title}")
    found = Inspection(None) if there is None else inspect(kind, store, there, progress)
    existing = found.sound
    covered = frozenset[int]() if existing is None else existing.segment_ids
    new = [int(id) for id in np.unique(rows.segments) if int(id) not in covered]
    if existing is not None and found.damaged:
        with database.writing() as session:
            derived_records.delete_parts(session, kind.name, found.damaged)
    contents = partial(_live_contents, database)
    work = BuildWork(store, rows, _OpenedSegments(store).opened, contents, scan, progress)
    replaces = existing is None
    for step in kind.build(work, existing, new, set(found.damaged), options):
        record_step(database, step.record, step.parts, replaces)
        replaces = False
    with database.reading() as session:
        record, live = derived_records.read(session)[kind.name], tables.live_counts(session)
    info = derived_info(store, record, live)
    return DerivedReport(
        name=kind.name,
        trained=existing is None,
        added=int(np.isin(rows.segments, new).sum()),
        repaired=found.problems,
        covered=info.covered,
        uncovered=info.uncovered,
        bytes=info.bytes,
        seconds=time.monotonic() - started,
        parameters=info.parameters,
        advice=info.advice,
    )


def record_step(database: Database, record: DerivedRecord, parts: Sequence[PartRecord], replaces: bool) -> None:
    """Name derived data and parts of it in one transaction; if it `replaces` older data, that is forgotten."""
    with database.writing() as session:
        if replaces:
            derived_records.insert_derived(session, record)
        else:
            derived_records.update_derived(session, record)
        derived_records.insert_parts(session, record.kind, parts)


def drop_derived(path: Path, database: Database, kind: DerivedKind) -> None:
    """Forget the derived data of a kind; the writer then removes its files.

    Raises:
        DerivedNotFoundError: the store has no data of that kind; for an index it is an `IndexNotFoundError`.
    """
    with database.writing() as session:
        if not derived_records.delete_derived(session, kind.name):
            error = IndexNotFoundError if kind.serves_searches else DerivedNotFoundError
            raise error(f"{path}: there is no {kind.title} to drop; 'rapidin info' shows what there is")


def _live_contents(database: Database) -> Iterator[tuple[str, str]]:
    """Yield the id and the content hash of every live sample."""
    with database.reading() as session:
        yield from tables.live_contents(session)


class _OpenedSegments:
    """The segments of a store, each opened when it is first asked for."""

    def __init__(self, store: StoreFacts) -> None:
        self._store = store
        self._opened: dict[int, Segment] = {}

    def opened(self, segment_id: int) -> Segment:
        if segment_id not in self._opened:
            record = self._store.segments.get(segment_id)
            if record is None:
                raise StoreCorruptError(
                    f"{self._store.path}/store.db: samples are in segment {segment_id}, which it does not name; "
                    "restore it from a backup"
                )
            self._opened[segment_id] = open_segment(self._store.path, record, self._store.dimension)
        return self._opened[segment_id]

"""The part of the database that a snapshot reads when it opens; it is kept until the next commit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from rapidin.settings import ProbeShape
from rapidin.storage.catalog import Database, tables
from rapidin.storage.derived import DerivedRecord, SearchIndexes, StoreFacts, derived_records, index_kinds
from rapidin.storage.scan import Scan
from rapidin.storage.vectors import Codec, OpenedSegments, Rows


@dataclass(frozen=True, slots=True)
class StoreState:
    """One state of a store.

    Attributes:
        rows: vectors of the live samples.
        indexes: indexes for approximate search, which stay open once opened.
        derived: records of all derived data, by kind.
        facts: facts of the store that derived data needs, the segments among them.
    """

    rows: Rows
    indexes: SearchIndexes
    derived: Mapping[str, DerivedRecord]
    facts: StoreFacts


class NewestState:
    """Reads the newest state and keeps it, so that the next search need not read a million rows again.

    Attributes:
        segments: open segments of the newest state, and of those before it that are still searched.
    """

    def __init__(
        self, path: Path, database: Database, dimension: int, codec: Codec, scan: Scan, probe_shape: ProbeShape
    ) -> None:
        """Read states of the store in the directory `path`; `scan` compares the candidates of indexes."""
        self._path = path
        self._database = database
        self._dimension = dimension
        self._probe_shape = probe_shape
        self._codec = codec
        self._scan = scan
        self.segments = OpenedSegments(path, dimension)
        self._lock = threading.Lock()
        self._kept: tuple[tuple[int, int], StoreState] | None = None

    def of(self, session: Session) -> StoreState:
        """Return the state that the transaction of a new session sees; the transaction begins here.

        Raises:
            StoreCorruptError: the database is damaged.
        """
        with self._lock, self._database.using(session):
            before = self._database.version()
            found = tables.segment_records(session)  # begins the transaction
            steady = self._database.version() == before
            if steady and self._kept is not None and self._kept[0] == before:
                return self._kept[1]
            records = {record.id or 0: record for record in found}
            rows = tables.searchable_rows(session)
            derived = derived_records.read(session)
            facts = StoreFacts(self._path, self._codec, self._dimension, records, self._probe_shape)
            indexes = SearchIndexes(index_kinds(), facts, derived, rows, self._scan)
            state = StoreState(rows, indexes, derived, facts)
            if steady:
                self._kept = (before, state)
                self.segments.keep_only(records.values())
            return state

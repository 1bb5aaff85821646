"""The indexes of one state of a store, and which of them a search uses; each is opened when it is first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import IndexNotFoundError, SettingError, StoreError
from rapidin.storage.derived.derived_kind import StoreFacts, check_row
from rapidin.storage.derived.derived_records import DerivedRecord
from rapidin.storage.derived.indexes.index_kind import LEAST_COVERED, IndexKind, SearchIndex
from rapidin.storage.scan import Ends, Scan
from rapidin.storage.vectors import Rows, SegmentSource

logger = logging.getLogger(__name__)

EXACT = "exact"
_AUTO = "auto"


class SearchIndexes:
    """Indexes as one state of the database names them; serves several threads."""

    def __init__(
        self,
        kinds: Mapping[str, IndexKind],
        store: StoreFacts,
        records: Mapping[str, DerivedRecord],
        rows: Rows,
        scan: Scan,
    ) -> None:
        """Take what the database says; no file is touched yet.

        Args:
            kinds: kinds of indexes by name.
            store: store that the indexes belong to.
            records: derived data by kind; only indexes are looked up.
            rows: vectors of the live samples.
            scan: scan that compares the candidates which an index finds.
        """
        self._kinds = kinds
        self._store = store
        self._records = records
        self._rows = rows
        self._scan = scan
        self._lock = threading.RLock()
        self._opened: dict[str, SearchIndex] = {}
        self._damaged: set[str] = set()

    def chosen_index(self, index: str, filtered: bool, nprobe: int | None, queries: int) -> str:
        """Return the kind of index that a search with these arguments uses, opened and checked, or ``exact``.

        Args:
            index: ``exact``, the kind of an index, or ``auto``.
            filtered: whether the search has filters; such a search is always exact.
            nprobe: number of lists to read; None if the search does not say it.
            queries: number of queries that are searched for together.

        Raises:
            SettingError: no index is of that kind, or `nprobe` does not fit it.
            IndexNotFoundError: the store has no index of that kind.
            StoreCorruptError: the index that was asked for by name is damaged.
        """
        choices = (_AUTO, EXACT, *self._kinds)
        if index not in choices:
            raise SettingError(f"index {index!r} is unknown: choose from {', '.join(choices)}")
        with_lists = [kind.name for kind in self._kinds.values() if kind.takes_nprobe]
        if nprobe is not None:
            if nprobe < 1:
                raise SettingError(f"--nprobe {nprobe} cannot be used: give at least 1")
            if index not in (_AUTO, *with_lists):
                kinds = " or ".join(repr(name) for name in with_lists)
                raise SettingError(f"--nprobe is of index {kinds} only: leave it out with {index!r}")
        if index == EXACT:
            return EXACT
        if index == _AUTO and nprobe is None:
            return EXACT if filtered else self._automatic(queries)
        kind = with_lists[0] if index == _AUTO else index
        if kind not in self._records:
            raise IndexNotFoundError(
                f"{self._store.path}: there is no index {kind!r}; build it with "
                f"'{self._kinds[kind].command(self._store.path)}', or search with --exact"
            )
        if filtered:
            return EXACT
        self._open(kind)
        return kind

    def search(
        self,
        kind: str,
        queries: NDArray[np.float32],
        k: int,
        ends: tuple[bool, bool],
        nprobe: int | None,
        segments: SegmentSource,
    ) -> Ends:
        """Search with an index; see `SearchIndex.search`.

        Args:
            kind: kind of index, from `chosen_index`.
            queries: queries, float32 [q, K].
            k: number of results that are wanted for each query.
            ends: whether the largest, and whether the smallest scores are wanted.
            nprobe: number of lists to read; None if the search does not say it.
            segments: function that gives the segment of a database id.

        Raises:
            StoreCorruptError, StoreError: as `SearchIndex.search`.
        """
        return self._open(kind).search(queries, k, *ends, nprobe, segments)

    def _automatic(self, queries: int) -> str:
        """Return the first kind by priority that is worth its use for so many queries, or ``exact``."""
        for kind in sorted(self._kinds.values(), key=lambda kind: -kind.priority(len(self._rows))):
            if kind.name not in self._records or not self._covers_enough(kind.name):
                continue
            with self._lock:
                if kind.name in self._damaged:
                    return EXACT
                try:
                    opened = self._open(kind.name)
                except StoreError as error:
                    self._damaged.add(kind.name)
                    logger.warning("%s; this search is exact", error)
                    return EXACT
            if opened.saves_time(queries):
                return kind.name
        return EXACT

    def _covers_enough(self, kind: str) -> bool:
        covered = np.isin(self._rows.segments, [part.segment_id for part in self._records[kind].parts])
        return len(covered) > 0 and float(covered.mean()) >= LEAST_COVERED

    def _open(self, name: str) -> SearchIndex:
        """Return an index that is open, or open it once it was checked."""
        with self._lock:
            if name not in self._opened:
                kind, record = self._kinds[name], self._records[name]
                check_row(self._store.path, record, kind.title, kind.remedy(self._store.path))
                self._opened[name] = kind.open(self._store, record, self._rows, self._scan)
            return self._opened[name]

"""The indexes of one snapshot: which of them a search uses; an index is opened when it is first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import IndexNotFoundError, SettingError, StoreError
from rapidin.settings import IndexChoice
from rapidin.storage.derived.derived_records import DerivedRecord
from rapidin.storage.derived.indexes.ivf import IvfIndex
from rapidin.storage.derived.indexes.parameters import LEAST_COVERED, MOST_SCANNED
from rapidin.storage.derived.indexes.rabitq import RabitqIndex
from rapidin.storage.scan import Ends, Scan
from rapidin.storage.vectors import Codec, Rows, SegmentRecord, SegmentSource

logger = logging.getLogger(__name__)

EXACT = "exact"
MANY_ROWS = 200_000
"""Number of samples from which on lists are preferred: reading one bit of everything takes longer."""

MOST_QUERIES = 16
"""Number of queries up to which one bit per number is read, query by query; more are faster compared exactly."""


class SearchIndexes:
    """Indexes as one state of the database names them; serves several threads."""

    def __init__(
        self,
        store: Path,
        records: Mapping[str, DerivedRecord],
        segments: Mapping[int, SegmentRecord],
        rows: Rows,
        codec: Codec,
        dimension: int,
        scan: Scan,
    ) -> None:
        """Take what the database says; no file is touched yet.

        Args:
            store: directory of the store.
            records: derived data by kind; only indexes are looked up.
            segments: segments of the store by database id.
            rows: live samples' vectors.
            codec: codec of the store.
            dimension: K.
            scan: scan that compares the candidates which an index finds.
        """
        self._store = store
        self._records = records
        self._segments = segments
        self._rows = rows
        self._codec = codec
        self._dimension = dimension
        self._scan = scan
        self._lock = threading.RLock()
        self._opened: dict[str, IvfIndex | RabitqIndex] = {}
        self._damaged: set[str] = set()

    def chosen_index(self, index: str, filtered: bool, nprobe: int | None, queries: int) -> str:
        """The kind of index that a search with these arguments uses, or ``exact``; it is opened and checked.

        Args:
            index: ``exact``, a kind, or ``auto``.
            filtered: whether the search is among filtered rows; such a one is always exact.
            nprobe: lists to read, where somebody says it.
            queries: how many are searched for together.

        Raises:
            SettingError: no index is of that kind, or `nprobe` does not fit it.
            IndexNotFoundError: the store has no index of that kind.
            StoreCorruptError: the index that was asked for by name is damaged.
        """
        if index not in get_args(IndexChoice):
            raise SettingError(f"index {index!r} is unknown: choose from {', '.join(get_args(IndexChoice))}")
        if nprobe is not None:
            if nprobe < 1:
                raise SettingError(f"--nprobe {nprobe} cannot be used: give at least 1")
            if index not in ("auto", "ivf"):
                raise SettingError(f"--nprobe is of index 'ivf' only: leave it out with {index!r}")
        if index == EXACT:
            return EXACT
        if index == "auto" and nprobe is None:
            return EXACT if filtered else self._automatic(queries)
        kind = "ivf" if nprobe is not None else index
        if kind not in self._records:
            raise IndexNotFoundError(
                f"{self._store}: there is no index {kind!r}; build it with 'rapidin index {self._store} "
                f"--type {kind}', or search with --exact"
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
        """Search with an index; ends that are not wanted are empty or None.

        Args:
            kind: kind of index that `chosen_index` gave.
            queries: [q, K].
            k: results wanted.
            ends: whether the largest, and whether the smallest scores are wanted.
            nprobe: lists to read.
            segments: gives the segment of a database id.
        """
        opened = self._open(kind)
        if isinstance(opened, IvfIndex):
            return opened.search(queries, k, *ends, nprobe, segments)
        return opened.search(queries, k, *ends, segments)

    def _automatic(self, queries: int) -> str:
        kinds = ["rabitq", "ivf"] if len(self._rows) < MANY_ROWS else ["ivf", "rabitq"]
        for kind in kinds:
            if kind not in self._records or not self._covers_enough(kind):
                continue
            with self._lock:
                if kind in self._damaged:
                    return EXACT
                try:
                    opened = self._open(kind)
                except StoreError as error:
                    self._damaged.add(kind)
                    logger.warning("%s; this search is exact", error)
                    return EXACT
            if isinstance(opened, RabitqIndex):
                saves = queries <= MOST_QUERIES
            else:
                lists = opened.parameters
                saves = lists.finds_enough and queries * lists.scanned <= MOST_SCANNED
            if saves:
                return kind
        return EXACT

    def _covers_enough(self, kind: str) -> bool:
        covered = np.isin(self._rows.segments, [part.segment_id for part in self._records[kind].parts])
        return len(covered) > 0 and float(covered.mean()) >= LEAST_COVERED

    def _open(self, kind: str) -> IvfIndex | RabitqIndex:
        with self._lock:
            if kind not in self._opened:
                self._opened[kind] = self._loaded(self._records[kind])
            return self._opened[kind]

    def _loaded(self, record: DerivedRecord) -> IvfIndex | RabitqIndex:
        if record.kind == "ivf":
            return IvfIndex(
                self._store, record, self._segments, self._rows, self._codec, self._dimension, self._scan
            )
        return RabitqIndex(self._store, record, self._segments, self._rows, self._dimension, self._scan)

"""A view of a store at one moment, and search in it, exact or with an index.

A snapshot keeps a read transaction open, so that neither its samples nor its filters see later commits, deletions
or changes of metadata. It also shares a lock of readers, so that the files of its segments stay. Close it soon,
because meanwhile SQLite's write-ahead log can only grow, and nothing that a later compaction replaces is removed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import (
    DerivedNotFoundError,
    SettingError,
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
)
from rapidin.records import Sample
from rapidin.storage.catalog import Database, compile_filters, hits_of, sample_of, tables
from rapidin.storage.concurrency import ReadersLock
from rapidin.storage.derived import (
    CURVATURE,
    EXACT,
    DerivedRecord,
    StoredCurvature,
    StoreFacts,
    Travelling,
    travelling,
)
from rapidin.storage.scan import Scan, nothing
from rapidin.storage.store_files import DATABASE_NAME
from rapidin.storage.store_state import NewestState
from rapidin.storage.vector_source import Found
from rapidin.storage.vectors import DecodedSamples, Rows, Segment, decoded_vectors


class Snapshot:
    """One state of a store, which is a `VectorSource`; it serves several threads.

    `Store.snapshot` opens it. Use it in a ``with``, at whose end it is closed.

    Attributes:
        samples: number of live samples in the snapshot.
    """

    def __init__(self, path: Path, database: Database, states: NewestState, scan: Scan) -> None:
        """Take the present state of the store in the directory `path`; `scan` compares vectors.

        Raises:
            StoreCorruptError: the database is damaged.
        """
        self._path = path
        self._database = database
        self._scan = scan
        self._lock = threading.RLock()  # a session serves one thread at a time
        self._opened: dict[int, Segment] = {}
        self._segments = states.segments
        self._closed = False
        self._readers = ReadersLock(path)  # before the transaction, so that its files stay
        self._session = database.open_session()
        try:
            state = states.of(self._session)
        except StoreError:
            self.close()
            raise
        self._rows, self._indexes = state.rows, state.indexes
        self._derived, self._facts = state.derived, state.facts
        self._dimension = state.facts.dimension
        self.samples = len(self._rows)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Sequence[str] = (),
        largest: bool = True,
        index: str = EXACT,
        nprobe: int | None = None,
    ) -> Found:
        """Find the k samples at one end; see `VectorSource.search`, and `chosen_index` for ``auto``.

        Raises:
            SettingError: k is not positive, a query is not finite, no index is of that kind, or `nprobe` does not
                fit it.
            IndexNotFoundError: the store has no index of that kind.
            FilterError: a filter cannot be read or asks for an unknown field.
            StoreMismatchError: the queries are not as long as the store's vectors.
            StoreCorruptError: a segment or the database is damaged.
        """
        return self._found(queries, k, where, (largest, not largest), index, nprobe)

    def search_ends(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Sequence[str] = (),
        index: str = EXACT,
        nprobe: int | None = None,
    ) -> Found:
        """Find both ends in one pass over the vectors; see `VectorSource.search_ends`.

        Raises:
            SettingError, IndexNotFoundError, FilterError, StoreMismatchError, StoreCorruptError: as `search`.
        """
        return self._found(queries, k, where, (True, True), index, nprobe)

    def chosen_index(
        self, index: str = "auto", where: Sequence[str] = (), nprobe: int | None = None, queries: int = 1
    ) -> str:
        """Return the index that a search with these arguments uses: ``exact``, or the kind of an index.

        A search with filters is exact, and so is a search with ``auto`` on a GPU. Otherwise ``auto`` takes an
        index that covers at least half of the samples, finds enough of the best and saves time: ``rabitq`` below
            200,000 samples,
        else ``ivf``. Many queries together are faster compared exactly. If an index is damaged, ``auto`` logs a
        warning and searches exactly.

        Args:
            index: ``exact``, the kind of an index, or ``auto``.
            where: filter expressions of the search.
            nprobe: number of lists that index ``ivf`` reads, in place of its own.
            queries: number of queries that are searched for together.

        Raises:
            SettingError: no index is of that kind, or `nprobe` does not fit it.
            IndexNotFoundError: the store has no index of that kind.
            StoreCorruptError: the index that was asked for by name is damaged.
        """
        self._check_open()
        if index == "auto" and nprobe is None and self._scan.outruns_indexes:
            return EXACT  # the CPU compares the candidates of indexes, which takes longer
        return self._indexes.chosen_index(index, bool(where), nprobe, queries)

    def derived(self, kind: str) -> tuple[StoreFacts, DerivedRecord] | None:
        """Return what a kind of derived data needs to read its files, which stay until this snapshot is closed.

        Args:
            kind: name of the kind.

        Returns:
            The store and the record of the data, with which `DerivedKind.check` checks it; None if the store has
            no data of that kind.
        """
        self._check_open()
        record = self._derived.get(kind)
        return None if record is None else (self._facts, record)

    def travelling(self) -> list[Travelling]:
        """Return the derived data that a copy of the store takes with it, if it is sound.

        Its files stay until this snapshot is closed.
        """
        self._check_open()
        return travelling(self._facts, self._derived)

    def curvature_version(self) -> str | None:
        """Return the version of the store's curvature; None if it has none.

        Raises:
            StoreCorruptError: the row of the curvature was altered.
            StoreFormatError: a newer rapidin computed it.
        """
        found = self.derived(CURVATURE.name)
        return None if found is None else CURVATURE.version(*found)

    def curvature(self) -> StoredCurvature:
        """Read the store's curvature.

        Raises:
            DerivedNotFoundError: the store has none.
            StoreCorruptError: its file is missing or is not as it was written.
            StoreFormatError: a newer rapidin computed it.
        """
        found = self.derived(CURVATURE.name)
        if found is None:
            command = CURVATURE.command(self._path)
            raise DerivedNotFoundError(f"{self._path}: there is no curvature: compute it with '{command}'")
        return CURVATURE.load(*found)

    def probed(self, keys: NDArray[np.uint64]) -> list[tuple[Sample, int] | None]:
        """Find the samples that probes of the curvature were drawn from.

        Args:
            keys: keys of the probes, see `StoredCurvature`.

        Returns:
            The sample of each probe, and the number of its draw; None if the sample was deleted or replaced.
        """
        with self._lock, self._database.using(self._session):
            self._check_open()
            requests = CURVATURE.located(tables.live_contents(self._session), keys)
            ids = {request.id for request in requests if request is not None}
            samples = {row.sample_id: sample_of(row) for row in tables.live_rows(self._session, ids)}
        return [None if request is None else (samples[request.id], request.draw) for request in requests]

    def scores(
        self, queries: NDArray[np.float32], where: Sequence[str] = ()
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Return the inner products of every query with every sample.

        Args:
            queries: float32 [q, K].
            where: filter expressions that a sample must all meet, see `filters`.

        Returns:
            The ids in ascending order, and the scores, float32 [q, n].

        Raises:
            SettingError, FilterError, StoreMismatchError, StoreCorruptError: as `search`.
        """
        queries = self._checked(queries)
        with self._lock, self._database.using(self._session):
            rows = self._selected(where)
            ids = tables.searchable_ids(self._session, compile_filters(where, self._session))
        return ids, self._scan.scores(queries, rows, self._segment)

    def count(self, where: Sequence[str] = ()) -> int:
        """Return the number of samples that meet all filters.

        Raises:
            FilterError: a filter cannot be read or asks for an unknown field.
        """
        with self._lock, self._database.using(self._session):
            return len(self._selected(where))

    def blocks(self, where: Sequence[str] = (), block_bytes: int = 2**25) -> Iterator[DecodedSamples]:
        """Yield samples and their vectors, some at a time, in the order in which they were stored.

        Args:
            where: filter expressions that a sample must all meet, see `filters`.
            block_bytes: maximum number of bytes of the vectors that come together; one vector always comes.

        Raises:
            FilterError, StoreCorruptError: as `search`.
        """
        with self._lock, self._database.using(self._session):
            rows = self._selected(where)
        order = np.argsort(rows.keys)
        step = max(1, block_bytes // (4 * self._dimension))
        for start in range(0, len(order), step):
            indexes = order[start : start + step]
            samples = self._samples(rows, indexes)
            vectors = decoded_vectors(rows.chosen(indexes), self._segment, self._dimension)
            yield DecodedSamples([samples[index] for index in indexes.tolist()], vectors)

    def close(self) -> None:
        """Close the snapshot; later calls are errors."""
        with self._lock:
            self._closed = True
            self._opened.clear()
            self._session.close()
            self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Sequence[str],
        wanted: tuple[bool, bool],
        index: str,
        nprobe: int | None,
    ) -> Found:
        """Search for the largest scores, the smallest ones, or both, as `wanted` says of each."""
        if k < 1:
            raise SettingError(f"k is {k}: ask for at least 1 sample")
        queries = self._checked(queries)
        with self._lock, self._database.using(self._session):
            rows = self._selected(where)
        chosen = self.chosen_index(index, where, nprobe, len(queries))
        if chosen == EXACT:
            ends = self._scan.best(queries, k, rows, self._segment, wanted[1])
        else:
            ends = self._indexes.search(chosen, queries, k, wanted, nprobe, self._segment)
        high = ends.largest if wanted[0] else nothing(len(queries))
        low = ends.smallest or nothing(len(queries))
        indexes = np.union1d(high.indexes, low.indexes)
        samples = self._samples(rows, indexes[indexes >= 0])
        return Found(
            chosen,
            [hits_of(*pair, samples) for pair in zip(high.scores, high.indexes, strict=True)],
            # Zero is added so that a score of zero has no sign.
            [hits_of(*pair, samples) for pair in zip(-low.scores + np.float32(0), low.indexes, strict=True)],
        )

    def _samples(self, rows: Rows, indexes: NDArray[np.int64]) -> dict[int, Sample]:
        """Return the samples of the rows at `indexes`, by index.

        Raises:
            StoreCorruptError: a row was altered, or it differs from what the search read in an index of SQLite.
        """
        keys = rows.keys[indexes].tolist()
        with self._lock, self._database.using(self._session):
            self._check_open()
            found = tables.rows_by_key(self._session, keys)
            samples = {key: sample_of(row) for key, row in found.items()}
        for index, key in zip(indexes, keys, strict=True):
            row = found.get(key)
            places = (rows.segments[index], rows.positions[index], rows.scales[index])
            if row is None or (row.segment_id, row.position, np.float32(row.scale)) != places:
                raise StoreCorruptError(
                    f"{self._path / DATABASE_NAME}: an index and the samples in it contradict each other; "
                    "restore the file from a backup"
                )
        return {int(index): samples[key] for index, key in zip(indexes, keys, strict=True)}

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self._path}: this snapshot is closed; ask the store for a new one")

    def _selected(self, where: Sequence[str]) -> Rows:
        self._check_open()
        if not where:
            return self._rows
        keys = tables.live_keys(self._session, compile_filters(where, self._session))
        return self._rows.having(keys)

    def _segment(self, segment_id: int) -> Segment:
        """Return an open segment, which is checked when it is first asked for."""
        with self._lock:
            self._check_open()
            if segment_id not in self._opened:
                record = self._facts.segments.get(segment_id)
                if record is None:
                    raise StoreCorruptError(
                        f"{self._path / DATABASE_NAME}: samples are in segment {segment_id}, which it does not "
                        "name; restore it from a backup"
                    )
                self._opened[segment_id] = self._segments.segment(record)
            return self._opened[segment_id]

    def _checked(self, queries: NDArray[Any]) -> NDArray[np.float32]:
        if queries.ndim != 2 or queries.shape[1] != self._dimension:
            raise StoreMismatchError(
                f"{self._path}: queries of shape {queries.shape} do not fit vectors of {self._dimension} numbers"
            )
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            queries = np.ascontiguousarray(queries, dtype=np.float32)
        finite = np.isfinite(queries).all(axis=1)
        if not finite.all():
            raise SettingError(
                f"query {int(np.flatnonzero(~finite)[0])}: its vector is not finite; leave the query out"
            )
        return queries

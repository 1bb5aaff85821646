"""Search by lists: a query reads the lists whose centroids are nearest to it, and rows that are in none.

What is found for a query does not depend on the queries beside it.

q queries · n rows · k results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived.derived_kind import check_row
from rapidin.storage.derived.derived_records import DerivedRecord
from rapidin.storage.derived.indexes import clustering, index_files
from rapidin.storage.derived.indexes.folding import Folding
from rapidin.storage.derived.indexes.parameters import IvfParameters, from_text
from rapidin.storage.scan import Best, Ends, Scan, best_of, joined
from rapidin.storage.vectors import Codec, Rows, SegmentRecord, SegmentSource

CANDIDATES_PER_RESULT = 10
"""Rows to read for each result wanted, at least; how many lists are enough was measured for ten results."""
_WASTE = 2
"""Times the rows that queries need for themselves that they may read together: a row is decoded once for all."""
_GROUP_SCORES = 2**25
"""Scores of queries that read together, at most."""


class IvfIndex:
    """An ``ivf`` index over the rows of a snapshot, checked and ready.

    Attributes:
        parameters: of the index.
    """

    def __init__(
        self,
        store: Path,
        record: DerivedRecord,
        segments: Mapping[int, SegmentRecord],
        rows: Rows,
        codec: Codec,
        dimension: int,
        scan: Scan,
    ) -> None:
        """Load the index.

        Args:
            store: directory of the store.
            record: of the index.
            segments: of the store, by database id.
            rows: live ones.
            codec: of the store.
            dimension: K.
            scan: scan that compares rows of lists, and rows that no list has.

        Raises:
            StoreCorruptError: a file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made it.
        """
        check_row(store, record, index_files.title(record.kind), index_files.remedy(store, record.kind))
        self.parameters = from_text(IvfParameters, record.parameters, store)
        self._rows = rows
        self._codec = codec
        self._scan = scan
        self._folding = Folding(dimension)
        self._centroids = index_files.load_centroids(store, record, self.parameters)
        lists = np.full(len(rows), -1, np.int32)
        parts = {part.segment_id: part for part in record.parts}
        places = dict(rows.by_segment())
        for segment_id, part in parts.items():
            of_segment = index_files.load_lists(store, self.parameters, part, segments.get(segment_id))
            indexes = places.get(segment_id, np.empty(0, np.int64))
            positions = rows.positions[indexes]
            if len(positions) and not 0 <= positions[0] <= positions[-1] < len(of_segment):
                raise StoreCorruptError(
                    f"{store}/store.db: a sample is beyond the end of its segment; restore it from a backup"
                )
            lists[indexes] = of_segment[positions]
        self._uncovered = np.flatnonzero(lists < 0)
        self._order = np.argsort(lists, kind="stable")[len(self._uncovered) :]
        self._sizes = np.bincount(lists[lists >= 0], minlength=self.parameters.nlist)
        self._ends = np.cumsum(self._sizes)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        largest: bool,
        smallest: bool,
        nprobe: int | None,
        segments: SegmentSource,
    ) -> Ends:
        """The best found, k of them where the store has as many.

        Args:
            queries: [q, K].
            k: results wanted.
            largest: whether the largest scores are wanted.
            smallest: whether the smallest are.
            nprobe: lists to read, more only where they hold fewer than k rows; None: as many as were measured to
                be enough for ten results, more for a larger k.
            segments: gives the segment of a database id.
        """
        k = min(k, max(1, len(self._rows)))
        found = Ends(len(queries), k, smallest)
        if largest:
            found.largest = self._best(queries, k, nprobe, self.parameters.nprobe, segments)
        if smallest:
            found.smallest = self._best(-queries, k, nprobe, self.parameters.nprobe_opponents, segments)
        return found

    def _best(
        self,
        queries: NDArray[np.float32],
        k: int,
        asked: int | None,
        measured: int,
        segments: SegmentSource,
    ) -> Best:
        """The best of the lists that were asked for, or of those measured to be enough, but of k rows at least."""
        order = clustering.probes(self._folding.directions(self._codec.turned(queries)), self._centroids)
        least = min(k if asked else CANDIDATES_PER_RESULT * k, len(self._order))
        lists = np.maximum(asked or measured, (np.cumsum(self._sizes[order], axis=1) < least).sum(axis=1) + 1)
        wanted = np.zeros((len(queries), self.parameters.nlist), bool)
        np.put_along_axis(wanted, order, np.arange(wanted.shape[1]) < lists[:, None], axis=1)
        outside = self._scan.best(queries, k, self._rows.chosen(self._uncovered), segments).largest
        inside = Best(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        for members in self._groups(wanted, order[:, 0]):
            indexes, lists = self._members(np.flatnonzero(wanted[members].any(axis=0)))
            rows = self._rows.chosen(indexes)
            if len(members) == 1:
                best = self._scan.best(queries[members], k, rows, segments).largest
            else:
                scores = self._scan.scores(queries[members], rows, segments)
                scores[~wanted[members][:, lists]] = -np.inf  # what others read
                places = np.broadcast_to(np.arange(len(indexes)), scores.shape)
                best = best_of(scores, places, k)
            width = best.scores.shape[1]
            inside.scores[members, :width] = best.scores
            inside.indexes[members, :width] = np.where(np.isneginf(best.scores), -1, indexes[best.indexes])
        outside = Best(outside.scores, self._uncovered[outside.indexes])
        return joined([outside, inside], len(queries), k)

    def _members(self, lists: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indexes of the rows in some lists, ascending, and the list of each."""
        starts = self._ends[lists] - self._sizes[lists]
        indexes = np.concatenate(
            [self._order[start:end] for start, end in zip(starts, self._ends[lists], strict=True)]
        )
        of_row = np.repeat(lists, self._sizes[lists])
        ascending = np.argsort(indexes, kind="stable")
        return indexes[ascending], of_row[ascending]

    def _groups(self, wanted: NDArray[np.bool_], first: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Queries that read together, since they need much the same lists."""
        own = wanted @ self._sizes
        group: list[int] = []
        union = np.zeros(wanted.shape[1], bool)
        for query in np.argsort(first, kind="stable").tolist():
            with_it = union | wanted[query]
            work = int(with_it @ self._sizes) * (len(group) + 1)
            needed = int(own[group].sum() + own[query])
            if group and (work > _WASTE * needed or work > _GROUP_SCORES):
                yield np.array(group)
                group, with_it = [], wanted[query]
            group.append(query)
            union = with_it
        if group:
            yield np.array(group)

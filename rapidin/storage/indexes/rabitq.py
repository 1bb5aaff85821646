"""Search by one bit per number first; the stored vectors of the best candidates then decide.

A part is a segment of codec 1 over the stored vectors of a segment, in the same positions. RaBitQ's own factors
carry each vector's norm, so that its scores, times the row's scale, estimate those of the store.

q queries · n rows · k results · K numbers in a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError
from rapidin.storage import scan
from rapidin.storage.codecs import CODECS
from rapidin.storage.indexes import loading
from rapidin.storage.indexes.catalog import IndexRecord, advice, check_row
from rapidin.storage.indexes.parameters import RabitqParameters, from_text
from rapidin.storage.ranking import Best, Ends, joined
from rapidin.storage.reading import Segment
from rapidin.storage.scan import Rows
from rapidin.storage.segments import SegmentRecord

LEAST_CANDIDATES = 300
CANDIDATES_PER_RESULT = 20
_BLOCK_BYTES = 2**25


def coded_segment(segment: Segment, dimension: int) -> Any:
    """A FAISS index of all vectors of a segment in one bit."""
    one_bit = CODECS[1]
    index = one_bit.new_index(dimension)
    step = max(1, _BLOCK_BYTES // (4 * dimension))
    buffer = np.empty((min(step, segment.rows), dimension), np.float32)
    for start in range(0, segment.rows, step):
        vectors = segment.decode(np.arange(start, min(start + step, segment.rows)), buffer)
        # The codecs that rotate do it alike.
        turned = vectors if segment.codec.rotated else one_bit.turned(vectors)
        index.add_sa_codes(index.sa_encode(turned))
    return index


class RabitqIndex:
    """A ``rabitq`` index over the rows of a snapshot, checked and ready."""

    def __init__(
        self,
        store: Path,
        record: IndexRecord,
        segments: Mapping[int, SegmentRecord],
        rows: Rows,
        dimension: int,
    ) -> None:
        """Open the index; the arguments are those of `IvfIndex`.

        Raises:
            StoreCorruptError: a file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made it.
        """
        check_row(store, record)
        parameters = from_text(RabitqParameters, record.parameters)
        self._store = store
        self._rows = rows
        self._parts = {
            part.segment_id: loading.open_codes(store, parameters, part, segments.get(part.segment_id), dimension)
            for part in record.parts
        }
        covered = np.isin(rows.segments, list(self._parts))
        self._covered = np.flatnonzero(covered)
        self._uncovered = np.flatnonzero(~covered)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        largest: bool,
        smallest: bool,
        open_by_id: Callable[[int], Segment],
    ) -> Ends:
        """The best found.

        Args:
            queries: [q, K].
            k: results wanted.
            largest: whether the largest scores are wanted.
            smallest: whether the smallest are.
            open_by_id: gives the segment of a database id.
        """
        count = max(LEAST_CANDIDATES, CANDIDATES_PER_RESULT * k)
        coarse = scan.search(queries, count, self._rows.chosen(self._covered), self._part, both=smallest)
        outside = scan.search(queries, k, self._rows.chosen(self._uncovered), open_by_id, both=smallest)
        found = Ends(len(queries), k, smallest)
        if largest:
            found.largest = self._decided(queries, k, coarse.largest, outside.largest, open_by_id)
        if coarse.smallest is not None and outside.smallest is not None:
            found.smallest = self._decided(-queries, k, coarse.smallest, outside.smallest, open_by_id)
        return found

    def _decided(
        self,
        queries: NDArray[np.float32],
        k: int,
        coarse: Best,
        outside: Best,
        open_by_id: Callable[[int], Segment],
    ) -> Best:
        """The best of the candidates by their stored vectors, and of the rows outside the index."""
        width = min(k, coarse.indexes.shape[1])
        inside = Best(np.empty((len(queries), width), np.float32), np.empty((len(queries), width), np.int64))
        for query, candidates in enumerate(coarse.indexes):
            indexes = self._covered[np.sort(candidates)]
            best = scan.search(queries[query : query + 1], k, self._rows.chosen(indexes), open_by_id).largest
            inside.scores[query], inside.indexes[query] = best.scores[0], indexes[best.indexes[0]]
        outside = Best(outside.scores, self._uncovered[outside.indexes])
        return joined([outside, inside], len(queries), k)

    def _part(self, segment_id: int) -> Segment:
        if segment_id not in self._parts:
            raise StoreCorruptError(
                f"{self._store}: no part of index 'rabitq' covers segment {segment_id}; "
                f"{advice(self._store, 'rabitq')}"
            )
        return self._parts[segment_id]

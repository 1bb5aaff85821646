"""Search by one bit per number first; the stored vectors of the best candidates then decide.

A part is a segment of codec 1 over the stored vectors of a segment, in the same positions. RaBitQ's own factors
carry each vector's norm, so that its scores, times the row's scale, estimate those of the store.

q queries · n rows · k results · K numbers in a vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived.derived_kind import check_row
from rapidin.storage.derived.derived_records import DerivedRecord
from rapidin.storage.derived.indexes import index_files
from rapidin.storage.derived.indexes.parameters import RabitqParameters, from_text
from rapidin.storage.scan import Best, Ends, Scan, best_of, joined
from rapidin.storage.vectors import Rows, Segment, SegmentRecord, SegmentSource, codec_of_bits

LEAST_CANDIDATES = 300
CANDIDATES_PER_RESULT = 20
_FIRST = 64
"""Candidates that are compared exactly whatever their one-bit scores are, and more for more than 16 results."""
_FIRST_PER_RESULT = 4
_QUERY_BITS = 4
"""Bits of a query's number in the first scan: half the time of 8 bits, and hardly a larger error."""
_ONE_BIT_ERROR = 0.785
"""Standard deviation of a one-bit score's error in that of the scores of unrelated vectors: √(π/2 − 1) for the
row's signs, and 0.2 for the query's bits."""
_MISSED = 2.33
"""Standard deviations of that error below a row's score, where its one-bit score is in one case of a hundred."""
_SELECTED = 1.27
"""Factor by which the errors of rows chosen by one-bit scores understate those of all rows, √(1 + 0.785²)."""
_MOST_SCORES = 2**26


def coded_segment(segment: Segment) -> Any:
    """A FAISS index of all vectors of a segment in one bit."""
    one_bit = codec_of_bits(1)
    index = one_bit.new_index(segment.dimension)
    for vectors in segment.decoded(np.arange(segment.rows)):
        alike = segment.codec.rotation is one_bit.rotation
        turned = vectors if alike else one_bit.turned(segment.codec.turned_back(vectors))
        index.add_sa_codes(index.sa_encode(turned))
    return index


def candidate_count(rows: int, k: int) -> int:
    """Return the number of `rows` to compare exactly so that 99 of 100 of the k best are among them.

    For vectors without any likeness, whose scores are normal: the k-th best of n lies at z = Φ⁻¹(1 − k/n), its
    one-bit score, in one case of a hundred, below z − 2.33·0.785, and so many one-bit scores lie above that. Where
    data has neighbours worth finding, these stand out farther, and fewer would do.
    """
    if rows <= max(LEAST_CANDIDATES, CANDIDATES_PER_RESULT * k):
        return rows
    normal = NormalDist()
    lowest = normal.inv_cdf(1 - k / rows) - _MISSED * _ONE_BIT_ERROR
    above = rows * (1 - normal.cdf(lowest / math.hypot(1, _ONE_BIT_ERROR)))
    return min(rows, max(LEAST_CANDIDATES, CANDIDATES_PER_RESULT * k, math.ceil(above)))


class RabitqIndex:
    """A ``rabitq`` index over the rows of a snapshot, checked and ready."""

    def __init__(
        self,
        store: Path,
        record: DerivedRecord,
        segments: Mapping[int, SegmentRecord],
        rows: Rows,
        dimension: int,
        scan: Scan,
    ) -> None:
        """Open the index; the arguments are those of `IvfIndex`.

        Raises:
            StoreCorruptError: a file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made it.
        """
        check_row(store, record, index_files.title(record.kind), index_files.remedy(store, record.kind))
        parameters = from_text(RabitqParameters, record.parameters, store)
        self._store = store
        self._rows = rows
        self._scan = scan
        self._parts = {
            part.segment_id: index_files.open_codes(
                store, parameters, part, segments.get(part.segment_id), dimension
            )
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
        segments: SegmentSource,
    ) -> Ends:
        """The best found.

        Args:
            queries: [q, K].
            k: results wanted.
            largest: whether the largest scores are wanted.
            smallest: whether the smallest are.
            segments: gives the segment of a database id.
        """
        largest_candidates, smallest_candidates = self._candidates(queries, k, smallest)
        outside = self._scan.best(queries, k, self._rows.chosen(self._uncovered), segments, both=smallest)
        found = Ends(len(queries), k, smallest)
        if largest:
            found.largest = self._decided(queries, k, largest_candidates, outside.largest, segments)
        if outside.smallest is not None:
            found.smallest = self._decided(-queries, k, smallest_candidates, outside.smallest, segments)
        return found

    def _candidates(self, queries: NDArray[np.float32], k: int, smallest: bool) -> tuple[Best, Best]:
        """Covered rows of largest one-bit scores, and of smallest ones if wanted, with their signs turned."""
        rows = self._rows.chosen(self._covered)
        count = candidate_count(len(rows), k)
        every = np.arange(len(rows))
        shape = (len(queries), count)
        high = Best(np.empty(shape, np.float32), np.empty(shape, np.int64))
        low = Best(np.empty(shape, np.float32), np.empty(shape, np.int64))
        step = max(1, _MOST_SCORES // max(1, len(rows)))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            scores = self._scan.scores(queries[some], rows, self._part, _QUERY_BITS)
            for end, signed in ((high, scores), (low, -scores))[: 1 + smallest]:
                found = best_of(signed, np.broadcast_to(every, scores.shape), count)
                end.scores[some], end.indexes[some] = found.scores, found.indexes
        return high, low

    def _decided(
        self,
        queries: NDArray[np.float32],
        k: int,
        coarse: Best,
        outside: Best,
        segments: SegmentSource,
    ) -> Best:
        """The best of the candidates by their stored vectors, and of the rows outside the index."""
        width = min(k, coarse.indexes.shape[1])
        inside = Best(np.empty((len(queries), width), np.float32), np.empty((len(queries), width), np.int64))
        for number in range(len(queries)):
            query = queries[number : number + 1]
            guesses, candidates = coarse.scores[number], self._covered[coarse.indexes[number]]
            scores = np.empty(0, np.float32)
            more = min(max(_FIRST, _FIRST_PER_RESULT * k), len(candidates))
            while more > len(scores):
                next_ones = candidates[len(scores) : more]
                scores = np.concatenate([scores, self._scores(query, next_ones, segments)])
                # What is far below the k-th best, by the error that these show, need not be looked at.
                error = _SELECTED * float(np.std(guesses[: len(scores)] - scores))
                least = np.partition(scores, -width)[-width] - _MISSED * error
                more = int(np.count_nonzero(guesses >= least))
            best = best_of(scores[None], candidates[None, : len(scores)], width)
            inside.scores[number], inside.indexes[number] = best.scores[0], best.indexes[0]
        outside = Best(outside.scores, self._uncovered[outside.indexes])
        return joined([outside, inside], len(queries), k)

    def _scores(
        self, query: NDArray[np.float32], indexes: NDArray[np.int64], segments: SegmentSource
    ) -> NDArray[np.float32]:
        """Exact scores [m] of the rows at `indexes` [m]."""
        scores: NDArray[np.float32] = self._scan.scores(query, self._rows.chosen(indexes), segments)[0]
        return scores

    def _part(self, segment_id: int) -> Segment:
        if segment_id not in self._parts:
            raise StoreCorruptError(
                f"{self._store}: no part of index 'rabitq' covers segment {segment_id}; "
                f"{index_files.remedy(self._store, 'rabitq')}"
            )
        return self._parts[segment_id]

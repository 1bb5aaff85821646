"""The index ``rabitq``: one bit per number is read first; the stored vectors of the best candidates then decide.

A part is a segment of codec 1 over the stored vectors of a segment, in the same positions. RaBitQ's own factors
carry each vector's norm, so that its scores, times the row's scale, estimate those of the store.

q queries · n rows · k results · K numbers in a vector.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.storage.derived import derived_files, derived_records
from rapidin.storage.derived.derived_kind import BuildStep, BuildWork, StoreFacts
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord
from rapidin.storage.derived.indexes.index_kind import IndexKindBase, from_text, to_text
from rapidin.storage.derived.indexes.list_making import IvfOptions
from rapidin.storage.scan import Best, Ends, Scan, best_of, joined
from rapidin.storage.vectors import (
    SUFFIX,
    Rows,
    Segment,
    SegmentRecord,
    SegmentSource,
    codec_of_bits,
    open_segment,
)

MOST_QUERIES = 16
"""Maximum number of queries for which bits are read, query by query; more are compared with all vectors faster."""
LEAST_CANDIDATES = 300
"""Minimum number of candidates that may be compared exactly."""
CANDIDATES_PER_RESULT = 20
"""Minimum number of such candidates for each result that is wanted."""
_FIRST = 64
"""Minimum number of candidates that are compared exactly whatever their one-bit scores are."""
_FIRST_PER_RESULT = 4
"""Minimum number of such candidates for each result that is wanted."""
_QUERY_BITS = 4
"""Bits of a query's number in the first scan; 8 bits take twice the time, and the error is hardly smaller."""
_ONE_BIT_ERROR = 0.785
"""Standard deviation of the error of a one-bit score, divided by that of the scores of unrelated vectors.

It is made of √(π/2 − 1) for the row's signs and 0.2 for the query's bits.
"""
_MISSED = 2.33
"""One one-bit score of a hundred lies this many standard deviations of that error, or more, below the score."""
_SELECTED = 1.27
"""Factor by which the errors of rows chosen by one-bit scores understate those of all rows, √(1 + 0.785²)."""
_MOST_SCORES = 2**26
"""Maximum number of one-bit scores that are computed at a time."""


@dataclass(frozen=True, slots=True)
class _RabitqParameters:
    """The parameters of an index of kind ``rabitq``.

    Attributes:
        build: name of the index, with which the names of its files begin.
    """

    build: str


class RabitqKind(IndexKindBase):
    """The kind ``rabitq``: one bit per number; each part is a step of building, because each takes long."""

    name = "rabitq"
    title = "index 'rabitq'"
    suffix = SUFFIX
    suffixes = frozenset({suffix})

    def priority(self, samples: int) -> int:  # noqa: ARG002
        """Return a place between those of ``ivf`` in small stores and in large ones."""
        return 1

    def open(self, store: StoreFacts, record: DerivedRecord, rows: Rows, scan: Scan) -> RabitqIndex:
        """Open the codes of all segments; see `IndexKind.open`.

        Raises:
            StoreCorruptError: a file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made the index.
        """
        parameters = self._parameters(store, record)
        parts = {part.segment_id: self._codes(store, parameters, part) for part in record.parts}
        return RabitqIndex(parts, rows, scan)

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        """Read the parameters; there is no shared file.

        Raises:
            StoreFormatError: a newer rapidin made the index.
        """
        self._parameters(store, record)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        """Read the codes of a segment.

        Raises:
            StoreCorruptError: they are missing or are not as they were written.
            StoreFormatError: a newer rapidin made the index.
        """
        self._codes(store, self._parameters(store, record), part, recheck=True)

    def advice(
        self,
        store: StoreFacts,
        record: DerivedRecord,  # noqa: ARG002
        covered: int,
        samples: int,
    ) -> str | None:
        """Return advice to the store's owner, or None."""
        return self.covers_too_little(store, covered, samples)

    def settled(
        self,
        store: StoreFacts,
        existing: DerivedRecord | None,  # noqa: ARG002
        options: IvfOptions,
    ) -> IvfOptions:
        """Return the options, of which none may be given.

        Raises:
            SettingError: an option was given, or the store keeps one bit per number itself.
        """
        self.refuse_options(options)
        if not store.codec.gains_from_rabitq:
            raise SettingError(
                f"{store.path}: the store itself keeps one bit per number, as 'rabitq' would: search it as it is, "
                "or build an index with --type ivf"
            )
        return options

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],  # noqa: ARG002
        options: IvfOptions,  # noqa: ARG002
    ) -> Iterator[BuildStep]:
        """Code segment after segment, each in a step of its own."""
        fresh = to_text(_RabitqParameters(uuid.uuid4().hex[:16]))
        record = existing or derived_records.new_record(self.name, fresh, None)
        build = self._parameters(work.store, record).build
        for done, segment_id in enumerate(segment_ids):
            work.progress("encode", done, len(segment_ids))
            segment = work.segments(segment_id)
            name = self.part_name(build, work.store.segments[segment_id])
            file = derived_files.write_codes(work.store.path, self.folder, name, coded_segment(segment))
            yield BuildStep(record, [PartRecord(segment_id, file, segment.rows)])
        work.progress("encode", len(segment_ids), len(segment_ids))

    def _codes(
        self, store: StoreFacts, parameters: _RabitqParameters, part: PartRecord, recheck: bool = False
    ) -> Segment:
        """Open the coded vectors of a part.

        Args:
            store: store that the index belongs to.
            parameters: parameters of the index.
            part: part that covers a segment.
            recheck: whether to compute the checksum even if this process has done so before.

        Raises:
            StoreCorruptError: the file is missing or is not as it was written.
        """
        segment, file = self.checked_part(store, parameters.build, part)
        one_bit = codec_of_bits(1).name
        record = SegmentRecord(segment.id, file.name, part.rows, file.bytes, file.checksum, one_bit)
        remedy = self.remedy(store.path)
        return open_segment(store.path, record, store.dimension, recheck, self.folder, remedy)

    @staticmethod
    def _parameters(store: StoreFacts, record: DerivedRecord) -> _RabitqParameters:
        return from_text(_RabitqParameters, record.parameters, store.path)


class RabitqIndex:
    """A ``rabitq`` index over the rows of one state of a store; see `SearchIndex`."""

    def __init__(self, parts: Mapping[int, Segment], rows: Rows, scan: Scan) -> None:
        """Divide rows into those that the index covers and the others.

        Args:
            parts: coded vectors of each segment that is covered, by its database id.
            rows: vectors of the live samples.
            scan: scan that compares codes, candidates, and rows that the index does not cover.
        """
        self._parts = parts
        self._rows = rows
        self._scan = scan
        covered = np.isin(rows.segments, list(parts))
        self._covered = np.flatnonzero(covered)
        self._uncovered = np.flatnonzero(~covered)

    def saves_time(self, queries: int) -> bool:
        """Return whether there are so few queries that reading their bits takes less time than all vectors."""
        return queries <= MOST_QUERIES

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        largest: bool,
        smallest: bool,
        nprobe: int | None,  # noqa: ARG002
        segments: SegmentSource,
    ) -> Ends:
        """Find the best; see `SearchIndex.search`. There are no lists, so `nprobe` means nothing."""
        largest_candidates, smallest_candidates = self._candidates(queries, k, smallest)
        outside = self._scan.best(queries, k, self._rows.chosen(self._uncovered), segments, both=smallest)
        found = Ends(len(queries), k, smallest)
        if largest:
            found.largest = self._decided(queries, k, largest_candidates, outside.largest, segments)
        if outside.smallest is not None:
            found.smallest = self._decided(-queries, k, smallest_candidates, outside.smallest, segments)
        return found

    def _candidates(self, queries: NDArray[np.float32], k: int, smallest: bool) -> tuple[Best, Best]:
        """Return covered rows of largest one-bit scores, and of smallest ones if wanted, with signs turned."""
        rows = self._rows.chosen(self._covered)
        count = candidate_count(len(rows), k)
        every = np.arange(len(rows))
        shape = (len(queries), count)
        high = Best(np.empty(shape, np.float32), np.empty(shape, np.int64))
        low = Best(np.empty(shape, np.float32), np.empty(shape, np.int64))
        step = max(1, _MOST_SCORES // max(1, len(rows)))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            scores = self._scan.scores(queries[some], rows, self._parts.__getitem__, _QUERY_BITS)
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
        """Return the best of the candidates by their stored vectors and of the rows outside the index."""
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
                # These scores show the error. Candidates that lie far below the k-th best by it are not looked at.
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
        """Return the exact scores [m] of the rows at `indexes` [m]."""
        scores: NDArray[np.float32] = self._scan.scores(query, self._rows.chosen(indexes), segments)[0]
        return scores


def coded_segment(segment: Segment) -> Any:
    """Return a FAISS index of all vectors of a segment, in one bit per number."""
    one_bit = codec_of_bits(1)
    index = one_bit.new_index(segment.dimension)
    for vectors in segment.decoded(np.arange(segment.rows)):
        alike = segment.codec.rotation is one_bit.rotation
        turned = vectors if alike else one_bit.turned(segment.codec.turned_back(vectors))
        index.add_sa_codes(index.sa_encode(turned))
    return index


def candidate_count(rows: int, k: int) -> int:
    """Return how many of `rows` are compared exactly, so that 99 of 100 of the k best are among them.

    The number suits vectors without any likeness, whose scores are normal. The k-th best of n then lies at
    z = Φ⁻¹(1 − k/n), and in one case of a hundred its one-bit score lies below z − 2.33·0.785. The number of
    one-bit scores above that is the result. If data has neighbours worth finding, these stand out farther, and
    fewer candidates would suffice.
    """
    if rows <= max(LEAST_CANDIDATES, CANDIDATES_PER_RESULT * k):
        return rows
    normal = NormalDist()
    lowest = normal.inv_cdf(1 - k / rows) - _MISSED * _ONE_BIT_ERROR
    above = rows * (1 - normal.cdf(lowest / math.hypot(1, _ONE_BIT_ERROR)))
    return min(rows, max(LEAST_CANDIDATES, CANDIDATES_PER_RESULT * k, math.ceil(above)))

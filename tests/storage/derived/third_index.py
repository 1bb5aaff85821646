"""A kind of index that only tests know, to show what a third one needs: this file, and a line in the registry.

A part holds the largest norm of the vectors of its segment. A search leaves out segments whose norms are so small
that they cannot reach the k best, so that it misses nothing.

q queries · k results.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rapidin.storage.derived import BuildStep, BuildWork, IvfOptions, StoreFacts, derived_files, derived_records
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord
from rapidin.storage.derived.indexes import IndexKindBase, SearchIndex
from rapidin.storage.derived.indexes.index_kind import from_text, to_text
from rapidin.storage.scan import Best, Ends, Scan, joined
from rapidin.storage.vectors import Rows, SegmentSource, decoded_vectors


@dataclass(frozen=True, slots=True)
class _Parameters:
    build: str


class NormIndex:
    """The index, opened: the largest norm of each segment; segments without one are always compared."""

    def __init__(self, norms: dict[int, float], rows: Rows, scan: Scan) -> None:
        self._norms = norms
        self._rows = rows
        self._scan = scan

    def saves_time(self, queries: int) -> bool:
        return queries == 1

    def search(
        self,
        queries: np.ndarray,
        k: int,
        largest: bool,
        smallest: bool,
        nprobe: int | None,
        segments: SegmentSource,
    ) -> Ends:
        assert nprobe is None
        found = Ends(len(queries), k, smallest)
        if largest:
            found.largest = self._best(queries, k, segments)
        if smallest:
            found.smallest = self._best(-queries, k, segments)
        return found

    def _best(self, queries: np.ndarray, k: int, segments: SegmentSource) -> Best:
        alone = [self._best_of_one(query[None], k, segments) for query in queries]
        width = min(k, len(self._rows))
        return Best(
            np.concatenate([best.scores for best in alone] or [np.empty((0, width), np.float32)]),
            np.concatenate([best.indexes for best in alone] or [np.empty((0, width), np.int64)]),
        )

    def _best_of_one(self, query: np.ndarray, k: int, segments: SegmentSource) -> Best:
        best = Best(np.empty((1, 0), np.float32), np.empty((1, 0), np.int64))
        by_norm = sorted(self._rows.by_segment(), key=lambda one: -self._norms.get(one[0], np.inf))
        for segment_id, indexes in by_norm:
            reach = self._norms.get(segment_id, np.inf) * np.linalg.norm(query)
            if best.scores.shape[1] == k and reach * 1.001 < best.scores[0, -1]:
                break
            indexes = np.sort(indexes)
            of_one = self._scan.best(query, k, self._rows.chosen(indexes), segments).largest
            best = joined([best, Best(of_one.scores, indexes[of_one.indexes])], 1, k)
        return best


class NormKind(IndexKindBase):
    name = "norms"
    title = "index 'norms'"
    suffix = ".safetensors"
    suffixes = frozenset({suffix})

    def priority(self, samples: int) -> int:
        return 3

    def open(self, store: StoreFacts, record: DerivedRecord, rows: Rows, scan: Scan) -> SearchIndex:
        self.check(store, record)
        norms = {part.segment_id: self._norm(store, record, part) for part in record.parts}
        return NormIndex(norms, rows, scan)

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        from_text(_Parameters, record.parameters, store.path)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        self._norm(store, record, part, recheck=True)

    def advice(self, store: StoreFacts, record: DerivedRecord, covered: int, samples: int) -> str | None:
        return self.covers_too_little(store, covered, samples)

    def settled(self, store: StoreFacts, existing: DerivedRecord | None, options: IvfOptions) -> IvfOptions:
        self.refuse_options(options)
        return options

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],
        options: IvfOptions,
    ) -> Iterator[BuildStep]:
        fresh = to_text(_Parameters(uuid.uuid4().hex))
        record = existing or derived_records.new_record(self.name, fresh, None)
        build = from_text(_Parameters, record.parameters, work.store.path).build
        for id, indexes in work.rows.by_segment():
            if id in segment_ids:
                vectors = decoded_vectors(work.rows.chosen(indexes), work.segments, work.store.dimension)
                norm = np.linalg.norm(vectors, axis=1).max(keepdims=True).astype(np.float32)
                segment = work.store.segments[id]
                name = self.part_name(build, segment)
                file = derived_files.write_arrays(work.store.path, self.folder, name, {"norm": norm})
                yield BuildStep(record, [PartRecord(id, file, segment.rows)])

    def _norm(self, store: StoreFacts, record: DerivedRecord, part: PartRecord, recheck: bool = False) -> float:
        build = from_text(_Parameters, record.parameters, store.path).build
        _, file = self.checked_part(store, build, part)
        remedy = self.remedy(store.path)
        norm = derived_files.read_array(store.path, self.folder, file, "norm", (1,), np.float32, remedy, recheck)
        return float(norm[0])

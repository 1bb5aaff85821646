"""The index ``ivf``: a query reads the lists whose centroids are nearest to it, and rows that are in no list.

Centroids lie in the shared file of the index, float32 [nlist, r]; a part holds the list of each row of its
segment.

q queries · n rows · r numbers in a folded vector · k results.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError, StoreCorruptError
from rapidin.storage.derived import derived_files, derived_records
from rapidin.storage.derived.derived_kind import BuildStep, BuildWork, StoreFacts
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord
from rapidin.storage.derived.indexes import clustering
from rapidin.storage.derived.indexes.folding import Folding
from rapidin.storage.derived.indexes.index_kind import IndexKindBase, from_text, to_text
from rapidin.storage.derived.indexes.ivf_parameters import MOST_SCANNED, IvfParameters
from rapidin.storage.derived.indexes.list_making import IvfOptions, ListMaker
from rapidin.storage.scan import Best, Ends, Scan, best_of, joined
from rapidin.storage.vectors import Rows, SegmentSource

MANY_ROWS = 200_000
"""Number of samples from which ``auto`` prefers lists, because reading one bit of everything takes longer."""
CANDIDATES_PER_RESULT = 10
"""Minimum number of rows to read for each result; the measured number of lists is enough for ten results."""
_WASTE = 2
"""Maximum ratio of the rows that queries read together to those that they need; a row is decoded once for all."""
_GROUP_SCORES = 2**25
"""Maximum number of scores of queries that read together."""


class IvfKind(IndexKindBase):
    """The kind ``ivf``: lists of similar vectors, whose centroids lie in the shared file."""

    name = "ivf"
    title = "index 'ivf'"
    suffix = ".safetensors"
    suffixes = frozenset({suffix})
    takes_nprobe = True

    def priority(self, samples: int) -> int:
        """Return a place before ``rabitq`` in large stores, and behind it in small ones."""
        return 2 if samples >= MANY_ROWS else 0

    def open(self, store: StoreFacts, record: DerivedRecord, rows: Rows, scan: Scan) -> IvfIndex:
        """Read the centroids and the lists of all segments; see `IndexKind.open`.

        Raises:
            StoreCorruptError: a file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made the index.
        """
        parameters = self._parameters(store, record)
        centroids = self._centroids(store, record, parameters)
        lists = np.full(len(rows), -1, np.int32)
        places = dict(rows.by_segment())
        for part in record.parts:
            of_segment = self._lists(store, parameters, part)
            indexes = places.get(part.segment_id, np.empty(0, np.int64))
            positions = rows.positions[indexes]
            if len(positions) and not 0 <= positions[0] <= positions[-1] < len(of_segment):
                raise StoreCorruptError(
                    f"{store.path}/store.db: a sample is beyond the end of its segment; restore it from a backup"
                )
            lists[indexes] = of_segment[positions]
        return IvfIndex(store, parameters, centroids, lists, rows, scan)

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        """Read the centroids.

        Raises:
            StoreCorruptError: they are missing or are not as they were written.
            StoreFormatError: a newer rapidin made the index.
        """
        self._centroids(store, record, self._parameters(store, record), recheck=True)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        """Read the lists of a segment.

        Raises:
            StoreCorruptError: they are missing or are not as they were written.
            StoreFormatError: a newer rapidin made the index.
        """
        self._lists(store, self._parameters(store, record), part, recheck=True)

    def advice(self, store: StoreFacts, record: DerivedRecord, covered: int, samples: int) -> str | None:
        """Return advice to the store's owner, or None.

        Raises:
            StoreFormatError: a newer rapidin made the index.
        """
        too_little = self.covers_too_little(store, covered, samples)
        return too_little or self._parameters(store, record).advice(samples, store.codec.gains_from_rabitq)

    def settled(self, store: StoreFacts, existing: DerivedRecord | None, options: IvfOptions) -> IvfOptions:
        """Return the options to build with; an index that is there keeps those that it was built with.

        Raises:
            SettingError: an option cannot be used, or it contradicts the options of the index that is there.
        """
        options.check()
        if existing is None:
            return options
        parameters = self._parameters(store, existing)
        pairs = (
            (options.nlist, parameters.asked_nlist),
            (options.nprobe, parameters.asked_nprobe),
            (options.train_sample, parameters.asked_train_sample),
            (options.recall, parameters.recall_target),
        )
        # The same command may come again, for example because it was killed.
        if any(asked not in (None, before) for asked, before in pairs):
            raise SettingError(
                f"{store.path}: there is an index 'ivf' with settings of its own: add --retrain to build it again "
                "with others, or leave them out to extend it"
            )
        return IvfOptions(
            parameters.asked_nlist,
            parameters.asked_nprobe,
            parameters.asked_train_sample,
            parameters.recall_target,
        )

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],
        options: IvfOptions,
    ) -> Iterator[BuildStep]:
        """Train lists, or sort the rows of further segments into the lists that there are, in one step."""
        if existing is None:
            yield self._trained(work, options)
        elif segment_ids:
            yield self._extended(work, existing, segment_ids, known)

    def _trained(self, work: BuildWork, options: IvfOptions) -> BuildStep:
        made = ListMaker(work).make(options)
        build = made.parameters.build
        centroids = {"centroids": made.centroids}
        shared = derived_files.write_arrays(work.store.path, self.folder, f"{build}{self.suffix}", centroids)
        parts = [self._part(work, build, segment_id, lists) for segment_id, lists in made.of_segments.items()]
        return BuildStep(derived_records.new_record(self.name, to_text(made.parameters), shared), parts)

    def _extended(
        self, work: BuildWork, existing: DerivedRecord, segment_ids: Sequence[int], known: Collection[int]
    ) -> BuildStep:
        """Give segments parts; rows of `known` segments are not counted, because they were counted before."""
        parameters = self._parameters(work.store, existing)
        centroids = self._centroids(work.store, existing, parameters)
        assigned = ListMaker(work).assign([centroids], segment_ids)
        parts = [
            self._part(work, parameters.build, segment_id, of_one[0][0]) for segment_id, of_one in assigned.items()
        ]
        added = [of_one[0][1] for segment_id, of_one in assigned.items() if segment_id not in known]
        if added:
            cosines = np.concatenate(added)
            rows = parameters.added_rows + len(cosines)
            total = parameters.added_rows * parameters.added_similarity + float(cosines.sum(dtype=np.float64))
            parameters = replace(parameters, added_rows=rows, added_similarity=total / rows)
        return BuildStep(derived_records.with_parameters(existing, to_text(parameters)), parts)

    def _part(self, work: BuildWork, build: str, segment_id: int, lists: NDArray[np.int32]) -> PartRecord:
        name = self.part_name(build, work.store.segments[segment_id])
        file = derived_files.write_arrays(work.store.path, self.folder, name, {"lists": lists})
        return PartRecord(segment_id, file, len(lists))

    def _centroids(
        self, store: StoreFacts, record: DerivedRecord, parameters: IvfParameters, recheck: bool = False
    ) -> NDArray[np.float32]:
        """Read the centroids, float32 [nlist, r].

        Args:
            store: store that the index belongs to.
            record: what the database says about the index.
            parameters: parameters of the index.
            recheck: whether to compute the checksum even if this process has done so before.

        Raises:
            StoreCorruptError: the file is missing or is not as it was written.
        """
        remedy = self.remedy(store.path)
        if record.file is None:
            raise StoreCorruptError(f"{store.path}/store.db: {self.title} names no file; {remedy}")
        shape = (parameters.nlist, parameters.width)
        centroids: NDArray[np.float32] = derived_files.read_array(
            store.path, self.folder, record.file, "centroids", shape, np.float32, remedy, recheck
        )
        if not np.isfinite(centroids).all():
            raise StoreCorruptError(
                f"{store.path / self.folder / record.file.name}: a centroid is not finite; {remedy}"
            )
        return centroids

    def _lists(
        self, store: StoreFacts, parameters: IvfParameters, part: PartRecord, recheck: bool = False
    ) -> NDArray[np.int32]:
        """Read the list of each row of a segment, int32 [rows]; arguments are those of `_centroids`.

        Raises:
            StoreCorruptError: the file is missing or is not as it was written.
        """
        segment, file = self.checked_part(store, parameters.build, part)
        remedy = self.remedy(store.path)
        lists: NDArray[np.int32] = derived_files.read_array(
            store.path, self.folder, file, "lists", (segment.rows,), np.int32, remedy, recheck
        )
        if len(lists) and not (lists.min() >= 0 and lists.max() < parameters.nlist):
            raise StoreCorruptError(f"{store.path / self.folder / file.name}: a row is in no list; {remedy}")
        return lists

    @staticmethod
    def _parameters(store: StoreFacts, record: DerivedRecord) -> IvfParameters:
        return from_text(IvfParameters, record.parameters, store.path)


class IvfIndex:
    """An ``ivf`` index over the rows of one state of a store; see `SearchIndex`.

    Attributes:
        parameters: parameters of the index.
    """

    def __init__(
        self,
        store: StoreFacts,
        parameters: IvfParameters,
        centroids: NDArray[np.float32],
        lists: NDArray[np.int32],
        rows: Rows,
        scan: Scan,
    ) -> None:
        """Sort rows by their lists.

        Args:
            store: store that the index belongs to.
            parameters: parameters of the index.
            centroids: centroids, float32 [nlist, r].
            lists: list of each row, [n]; −1 for a row that the index does not cover.
            rows: vectors of the live samples.
            scan: scan that compares rows of lists, and rows that are in no list.
        """
        self.parameters = parameters
        self._rows = rows
        self._codec = store.codec
        self._folding = Folding(store.dimension)
        self._scan = scan
        self._centroids = centroids
        self._uncovered = np.flatnonzero(lists < 0)
        self._order = np.argsort(lists, kind="stable")[len(self._uncovered) :]
        self._sizes = np.bincount(lists[lists >= 0], minlength=self.parameters.nlist)
        self._ends = np.cumsum(self._sizes)

    def saves_time(self, queries: int) -> bool:
        """Return whether the lists find enough, and queries that read their lists read few rows in all."""
        return self.parameters.finds_enough and queries * self.parameters.scanned <= MOST_SCANNED

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        largest: bool,
        smallest: bool,
        nprobe: int | None,
        segments: SegmentSource,
    ) -> Ends:
        """Find the k best; see `SearchIndex.search`.

        Args:
            queries: queries, float32 [q, K].
            k: number of results that are wanted for each query.
            largest: whether the largest scores are wanted.
            smallest: whether the smallest scores are wanted.
            nprobe: number of lists to read, more only if they hold fewer than k rows; None: as many as were
                measured to be enough for ten results, more for a larger k.
            segments: function that gives the segment of a database id.
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
        """Find the best in as many lists as were asked for, or measured to be enough, but in at least k rows."""
        order = clustering.nearest_lists(self._folding.directions(self._codec.turned(queries)), self._centroids)
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
                scores[~wanted[members][:, lists]] = -np.inf  # lists that only other queries read
                places = np.broadcast_to(np.arange(len(indexes)), scores.shape)
                best = best_of(scores, places, k)
            width = best.scores.shape[1]
            inside.scores[members, :width] = best.scores
            inside.indexes[members, :width] = np.where(np.isneginf(best.scores), -1, indexes[best.indexes])
        outside = Best(outside.scores, self._uncovered[outside.indexes])
        return joined([outside, inside], len(queries), k)

    def _members(self, lists: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the indexes of the rows in some lists, ascending, and the list of each row."""
        starts = self._ends[lists] - self._sizes[lists]
        indexes = np.concatenate(
            [self._order[start:end] for start, end in zip(starts, self._ends[lists], strict=True)]
        )
        of_row = np.repeat(lists, self._sizes[lists])
        ascending = np.argsort(indexes, kind="stable")
        return indexes[ascending], of_row[ascending]

    def _groups(self, wanted: NDArray[np.bool_], first: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield groups of queries that read together, because they need much the same lists."""
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

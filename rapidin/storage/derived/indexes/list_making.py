"""Making the lists of an ``ivf`` index: a sample is clustered, rows are assigned, and the best lists are chosen.

n rows · h queries · m neighbours of each · r numbers in a folded vector · K numbers in a vector.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.storage.derived.derived_kind import BuildWork
from rapidin.storage.derived.indexes import clustering, tuning
from rapidin.storage.derived.indexes.folding import Folding
from rapidin.storage.derived.indexes.ivf_parameters import IvfParameters
from rapidin.storage.scan import Best
from rapidin.storage.vectors import decoded_vectors

QUERIES = 100
"""Maximum number of stored vectors that are held back to measure with; they are at most a tenth of all."""
NEIGHBOURS = 10
"""Number of true neighbours of each held-back vector that are looked for."""
DEFAULT_RECALL = 0.95
"""Share of the true neighbours that a search finds, unless another share is asked for."""
_SEED = 99
"""Seed of the choice of the vectors to hold back and to train with."""


@dataclass(frozen=True, slots=True)
class IvfOptions:
    """The settings that a user may give for an ``ivf`` index; for None the best value is measured.

    Attributes:
        nlist: number of lists.
        nprobe: number of lists that a search reads.
        train_sample: number of vectors to make lists from.
        recall: share of the true ten best that is to be found, in (0, 1]; None: `DEFAULT_RECALL`.
    """

    nlist: int | None = None
    nprobe: int | None = None
    train_sample: int | None = None
    recall: float | None = None

    def check(self) -> None:
        """Check everything that does not depend on the store.

        Raises:
            SettingError: a value cannot be used.
        """
        for name, value in (("nlist", self.nlist), ("nprobe", self.nprobe), ("train-sample", self.train_sample)):
            if value is not None and value < 1:
                raise SettingError(f"--{name} {value} cannot be used: give at least 1")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise SettingError(f"--recall {self.recall} cannot be used: give a number above 0, at most 1")


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists that were made.

    Attributes:
        centroids: centroids of the lists, [nlist, r].
        of_segments: list of each row of a segment, by the segment's database id.
        parameters: numbers that were chosen and measured.
    """

    centroids: NDArray[np.float32]
    of_segments: Mapping[int, NDArray[np.int32]]
    parameters: IvfParameters


class ListMaker:
    """Makes lists for the rows of one state of a store.

    Args:
        work: state of the store, and the scan that finds the true neighbours that lists are measured with.
    """

    def __init__(self, work: BuildWork) -> None:
        self._store = work.store
        self._rows = work.rows
        self._open = work.segments
        self._scan = work.scan
        self._progress = work.progress
        self._folding = Folding(work.store.dimension)

    def make(self, options: IvfOptions) -> Lists:
        """Make new lists; if no number of lists was asked for, it is the one with which searches read least.

        Raises:
            SettingError: there are fewer vectors than lists, or fewer lists than a search shall read.
        """
        count = len(self._rows)
        shuffled = np.random.default_rng(_SEED).permutation(count)
        held = np.sort(shuffled[: min(QUERIES, max(1, count // 10))])
        others = shuffled[len(held) :] if count > 1 else shuffled
        most = min(len(others), options.train_sample or max(1, clustering.MEMORY // (4 * self._folding.width)))
        counts = clustering.list_counts(count, most, options.nlist)
        if options.train_sample is None:
            most = min(most, clustering.MOST_PER_LIST * counts[-1])
        if options.nprobe is not None and options.nprobe > counts[-1]:
            raise SettingError(f"--nprobe {options.nprobe} cannot be used: there are {counts[-1]:,} lists")
        self._progress("sample", 0, most)
        sample = self._folding.of_rows(self._rows.chosen(np.sort(others[:most])), self._open)
        candidates = []
        for done, nlist in enumerate(counts):
            self._progress("train", done, len(counts))
            candidates.append(clustering.train(sample, nlist))
        del sample
        assigned = self.assign(candidates, sorted({int(id) for id in np.unique(self._rows.segments)}))
        self._progress("measure", 0, 1)
        truth = self._truth(held)
        made = []
        for number, centroids in enumerate(candidates):
            lists = {segment: of_all[number][0] for segment, of_all in assigned.items()}
            made.append(Lists(centroids, lists, self._measured(centroids, lists, held, truth, options, most)))
        self._progress("measure", 1, 1)
        return min(made, key=self._bytes_read)

    def assign(
        self, candidates: Sequence[NDArray[np.float32]], segment_ids: Sequence[int]
    ) -> dict[int, list[tuple[NDArray[np.int32], NDArray[np.float32]]]]:
        """Assign all rows of segments to lists, for each of several sets of centroids.

        Returns:
            For each segment, by database id, and for each set of centroids the list of each row, and the cosine of
            the row's direction and the centroid.
        """
        assigned = {}
        for done, segment_id in enumerate(segment_ids):
            self._progress("assign", done, len(segment_ids))
            segment = self._open(segment_id)
            blocks: list[list[tuple[NDArray[np.int32], NDArray[np.float32]]]] = [[] for _ in candidates]
            for directions in self._folding.of_segment(segment, np.arange(segment.rows)):
                for of_one, centroids in zip(blocks, candidates, strict=True):
                    of_one.append(clustering.assign(directions, centroids))
            assigned[segment_id] = [
                (
                    np.concatenate([lists for lists, _ in of_one]),
                    np.concatenate([cosines for _, cosines in of_one]),
                )
                for of_one in blocks
            ]
        self._progress("assign", len(segment_ids), len(segment_ids))
        return assigned

    def _truth(self, held: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return indexes [h, m] of the rows of largest, and of smallest, inner product with each held-back row.

        A row is no neighbour of itself.
        """
        # The length of a query does not change the order, but scores might overflow.
        rows = replace(self._rows.chosen(held), scales=np.ones(len(held), np.float32))
        vectors = decoded_vectors(rows, self._open, self._store.dimension)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ends = self._scan.best(vectors, NEIGHBOURS + 1, self._rows, self._open, both=True)
        low = ends.smallest or ends.largest
        return _without_itself(ends.largest, held), _without_itself(low, held)

    def _measured(
        self,
        centroids: NDArray[np.float32],
        lists: Mapping[int, NDArray[np.int32]],
        held: NDArray[np.int64],
        truth: tuple[NDArray[np.int64], NDArray[np.int64]],
        options: IvfOptions,
        train_rows: int,
    ) -> IvfParameters:
        """Measure how many of some lists a search must read, with the held-back rows as queries."""
        of_rows = np.empty(len(self._rows), np.int32)
        for segment_id, indexes in self._rows.by_segment():
            of_rows[indexes] = lists[segment_id][self._rows.positions[indexes]]
        sizes = np.bincount(of_rows, minlength=len(centroids))
        directions = self._folding.of_rows(self._rows.chosen(held), self._open)
        high = tuning.measure(clustering.nearest_lists(directions, centroids), of_rows[truth[0]], sizes)
        low = tuning.measure(clustering.nearest_lists(-directions, centroids), of_rows[truth[1]], sizes)
        target = DEFAULT_RECALL if options.recall is None else options.recall
        nprobe = options.nprobe or high.least(target)
        nprobe_opponents = options.nprobe or low.least(target)
        recall, scanned = high.at(nprobe)
        recall_opponents, scanned_opponents = low.at(nprobe_opponents)
        return IvfParameters(
            build=uuid.uuid4().hex[:16],
            width=self._folding.width,
            nlist=len(centroids),
            nprobe=nprobe,
            nprobe_opponents=nprobe_opponents,
            recall_target=target,
            recall=recall,
            recall_opponents=recall_opponents,
            scanned=scanned,
            scanned_opponents=scanned_opponents,
            queries=len(held),
            train_rows=train_rows,
            rows=len(self._rows),
            similarity=float(clustering.assign(directions, centroids)[1].mean()),
            asked_nlist=options.nlist,
            asked_nprobe=options.nprobe,
            asked_train_sample=options.train_sample,
        )

    def _bytes_read(self, made: Lists) -> float:
        """Return the number of bytes that a search reads, including the centroids."""
        rows = made.parameters.scanned * len(self._rows) * self._store.codec.row_bytes(self._store.dimension)
        return rows + made.centroids.nbytes


def _without_itself(best: Best, held: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return indexes [h, m] of the best [h, m + 1], without each query's own row, or else without the last one."""
    found = best.indexes
    other = found != held[:, None]
    other[other.all(axis=1), -1] = False
    left: NDArray[np.int64] = found[other].reshape(len(found), -1)
    return left

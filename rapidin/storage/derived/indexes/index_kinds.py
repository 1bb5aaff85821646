"""The two kinds of indexes as kinds of derived data: how each is built, extended, checked and advised about."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.storage.derived import derived_files, derived_records
from rapidin.storage.derived.derived_kind import BuildStep, BuildWork, DerivedKind, StoreFacts
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord
from rapidin.storage.derived.indexes import index_files
from rapidin.storage.derived.indexes.index_files import part_name, remedy, title
from rapidin.storage.derived.indexes.list_making import IvfOptions, ListMaker
from rapidin.storage.derived.indexes.parameters import (
    LEAST_COVERED,
    IvfParameters,
    RabitqParameters,
    from_text,
    to_text,
)
from rapidin.storage.derived.indexes.rabitq import coded_segment
from rapidin.storage.scan import CpuScan
from rapidin.storage.store_files import INDEXES_NAME
from rapidin.storage.vectors import SUFFIX


class _IndexKind:
    """The common part of both kinds."""

    name: str
    title: str
    folder = INDEXES_NAME
    serves_searches = True
    follows_samples = False

    def command(self, store: Path) -> str:
        """The command that builds, extends and repairs the index."""
        return f"rapidin index {store} --type {self.name}"

    def remedy(self, store: Path) -> str:
        """Return the remedy for a damaged index."""
        return remedy(store, self.name)

    def left_behind(self, target: Path) -> str:
        """Return a note that the copy at `target` has no such index."""
        return f"{self.title} is not in {target}: 'rapidin index STORE --type {self.name}' builds it in a store"

    def _covers_too_little(self, store: StoreFacts, covered: int, samples: int) -> str | None:
        if covered >= LEAST_COVERED * samples:
            return None
        return (
            f"it covers {covered:,} of {samples:,} samples, so searches take it only if told to: "
            f"'{self.command(store.path)}' extends it"
        )


class IvfKind(_IndexKind):
    """The index ``ivf``: lists of similar vectors, whose centroids lie in the shared file."""

    name = "ivf"
    title = title("ivf")
    suffixes = frozenset({".safetensors"})

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        """Read the centroids.

        Raises:
            StoreCorruptError: they are missing or are not as they were written.
            StoreFormatError: a newer rapidin made the index.
        """
        index_files.load_centroids(store.path, record, self._parameters(store, record), recheck=True)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        """Read the lists of a segment.

        Raises:
            StoreCorruptError: they are missing or are not as they were written.
            StoreFormatError: a newer rapidin made the index.
        """
        segment = store.segments.get(part.segment_id)
        index_files.load_lists(store.path, self._parameters(store, record), part, segment, recheck=True)

    def advice(self, store: StoreFacts, record: DerivedRecord, covered: int, samples: int) -> str | None:
        """Return advice to the store's owner, or None.

        Raises:
            StoreFormatError: a newer rapidin made the index.
        """
        too_little = self._covers_too_little(store, covered, samples)
        return too_little or self._parameters(store, record).advice(samples, store.codec.gains_from_rabitq)

    def settled(self, store: StoreFacts, existing: DerivedRecord | None, options: IvfOptions) -> IvfOptions:
        """The options to build with: an index that is there keeps those that it was built with.

        Raises:
            SettingError: an option cannot be used, or contradicts those of the index that is there.
        """
        options.check()
        if existing is None:
            return options
        parameters = self._parameters(store, existing)
        asked = (options.nlist, options.nprobe, options.train_sample)
        if asked != (None, None, None) or options.recall not in (None, parameters.recall_target):
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
        """Train lists, or sort the rows of further segments into those that there are; one step."""
        if existing is None:
            yield self._trained(work, options)
        elif segment_ids:
            yield self._extended(work, existing, segment_ids, known)

    def _trained(self, work: BuildWork, options: IvfOptions) -> BuildStep:
        made = self._list_maker(work).make(options)
        build = made.parameters.build
        centroids = {"centroids": made.centroids}
        shared = derived_files.write_arrays(work.store.path, self.folder, f"{build}.safetensors", centroids)
        parts = [self._part(work, build, segment_id, lists) for segment_id, lists in made.of_segments.items()]
        return BuildStep(derived_records.new_record(self.name, to_text(made.parameters), shared), parts)

    def _extended(
        self, work: BuildWork, existing: DerivedRecord, segment_ids: Sequence[int], known: Collection[int]
    ) -> BuildStep:
        """Give segments a part; rows of the `known` ones were counted when they were covered first."""
        parameters = self._parameters(work.store, existing)
        centroids = index_files.load_centroids(work.store.path, existing, parameters)
        assigned = self._list_maker(work).assign([centroids], segment_ids)
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
        name = part_name(build, work.store.segments[segment_id].name, ".safetensors")
        file = derived_files.write_arrays(work.store.path, self.folder, name, {"lists": lists})
        return PartRecord(segment_id, file, len(lists))

    @staticmethod
    def _list_maker(work: BuildWork) -> ListMaker:
        return ListMaker(
            work.rows, work.segments, work.store.codec, work.store.dimension, CpuScan(), work.progress
        )

    @staticmethod
    def _parameters(store: StoreFacts, record: DerivedRecord) -> IvfParameters:
        return from_text(IvfParameters, record.parameters, store.path)


class RabitqKind(_IndexKind):
    """The index ``rabitq``: one bit per number; each part is a step, because each takes long."""

    name = "rabitq"
    title = title("rabitq")
    suffixes = frozenset({SUFFIX})

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
        parameters, segment = self._parameters(store, record), store.segments.get(part.segment_id)
        index_files.open_codes(store.path, parameters, part, segment, store.dimension, recheck=True)

    def advice(
        self,
        store: StoreFacts,
        record: DerivedRecord,  # noqa: ARG002
        covered: int,
        samples: int,
    ) -> str | None:
        """Return advice to the store's owner, or None."""
        return self._covers_too_little(store, covered, samples)

    def settled(
        self,
        store: StoreFacts,
        existing: DerivedRecord | None,  # noqa: ARG002
        options: IvfOptions,
    ) -> IvfOptions:
        """The options, of which there must be none.

        Raises:
            SettingError: an option was given, or the store keeps one bit per number itself.
        """
        options.check()
        if options != IvfOptions():
            raise SettingError(
                "--nlist, --nprobe, --recall and --train-sample are options of index 'ivf': leave them out with "
                "'rabitq'"
            )
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
        fresh = to_text(RabitqParameters(uuid.uuid4().hex[:16]))
        record = existing or derived_records.new_record(self.name, fresh, None)
        build = self._parameters(work.store, record).build
        for done, segment_id in enumerate(segment_ids):
            work.progress("encode", done, len(segment_ids))
            segment = work.segments(segment_id)
            name = part_name(build, work.store.segments[segment_id].name, SUFFIX)
            file = derived_files.write_codes(work.store.path, self.folder, name, coded_segment(segment))
            yield BuildStep(record, [PartRecord(segment_id, file, segment.rows)])
        work.progress("encode", len(segment_ids), len(segment_ids))

    @staticmethod
    def _parameters(store: StoreFacts, record: DerivedRecord) -> RabitqParameters:
        return from_text(RabitqParameters, record.parameters, store.path)


IVF: DerivedKind = IvfKind()
RABITQ: DerivedKind = RabitqKind()

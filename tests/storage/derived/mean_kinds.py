"""Two kinds of derived data that only tests know, to show what a kind needs: a mean vector, kept in two ways."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from rapidin.errors import SettingError, StoreCorruptError
from rapidin.storage.derived import BuildStep, BuildWork, StoreFacts, derived_files, derived_records
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord, WrittenFile


class _Means:
    folder = "means"
    suffixes = frozenset({".safetensors"})
    serves_searches = False
    name: str
    title: str

    def command(self, store: Path) -> str:
        return f"rapidin {self.name} {store}"

    def remedy(self, store: Path) -> str:
        return f"run '{self.command(store)}'"

    def left_behind(self, target: Path) -> str:
        return f"the {self.title} is not in {target}"

    def advice(self, store: StoreFacts, record: DerivedRecord, covered: int, samples: int) -> str | None:
        return None if covered == samples else f"it covers {covered} of {samples}: '{self.command(store.path)}'"

    def settled(self, store: StoreFacts, existing: DerivedRecord | None, options: object) -> object:
        if options is not None:
            raise SettingError(f"{self.title} has no options")
        return options

    def _check_file(self, store: StoreFacts, file: WrittenFile | None) -> None:
        if file is None:
            raise StoreCorruptError(f"{store.path}: {self.title} names no file; {self.remedy(store.path)}")
        shape, remedy = (store.dimension,), self.remedy(store.path)
        derived_files.read_array(store.path, self.folder, file, "mean", shape, np.float32, remedy, recheck=True)

    def _written(self, work: BuildWork, name: str, segment_ids: Sequence[int]) -> WrittenFile:
        """The mean of all rows of some segments, written."""
        blocks = [
            block.copy()
            for id in segment_ids
            for block in work.segments(id).decoded(np.arange(work.segments(id).rows))
        ]
        mean = np.concatenate(blocks).mean(axis=0, dtype=np.float64).astype(np.float32)
        return derived_files.write_arrays(work.store.path, self.folder, f"{name}.safetensors", {"mean": mean})


class StoreMean(_Means):
    """One mean of the whole store: made again for every extension, and still right after a compaction."""

    name = "store-mean"
    title = "mean of the store"
    follows_samples = True
    travels = False

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        self._check_file(store, record.file)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        pass

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],
        options: object,
    ) -> Iterator[BuildStep]:
        if existing is not None and not segment_ids:
            return
        everything = [id for id, _ in work.rows.by_segment()]
        file = self._written(work, uuid.uuid4().hex, everything)
        new = derived_records.new_record(self.name, json.dumps({"samples": len(work.rows)}), file)
        yield BuildStep(new, [PartRecord(id, None, work.store.segments[id].rows) for id in segment_ids])


class SegmentMeans(_Means):
    """A mean of each segment, in a file and a step of its own."""

    name = "segment-means"
    title = "means of segments"
    follows_samples = False
    travels = False

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        json.loads(record.parameters)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        self._check_file(store, part.file)

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],
        options: object,
    ) -> Iterator[BuildStep]:
        record = existing or derived_records.new_record(self.name, json.dumps({"build": uuid.uuid4().hex}), None)
        for id in segment_ids:
            file = self._written(work, f"{json.loads(record.parameters)['build']}-{id}", [id])
            yield BuildStep(record, [PartRecord(id, file, work.store.segments[id].rows)])


MEANS = (StoreMean(), SegmentMeans())

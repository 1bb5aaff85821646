"""Building, extending and dropping the indexes of a store; only under the writer's lock.

All files of an index are complete and on disk before a transaction names them, so that a kill leaves nothing but
files that no row names. An index of kind ``rabitq`` is named part by part, since each takes long: a build that was
killed goes on where it was.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rapidin.errors import IndexNotFoundError, SettingError, StoreEmptyError
from rapidin.records import IndexReport
from rapidin.settings import IndexKind
from rapidin.storage.catalog import Database, tables
from rapidin.storage.derived import derived_rows, part_writing, repairing
from rapidin.storage.derived.derived_rows import KINDS, IndexRecord, PartRecord, part_name
from rapidin.storage.derived.indexes import part_reading
from rapidin.storage.derived.indexes.advice import index_info
from rapidin.storage.derived.indexes.list_making import IvfOptions, ListMaker, Progress
from rapidin.storage.derived.indexes.parameters import IvfParameters, RabitqParameters, from_text
from rapidin.storage.derived.indexes.rabitq import coded_segment
from rapidin.storage.maintenance import garbage
from rapidin.storage.scan import CpuScan
from rapidin.storage.vectors import Codec, Segment, open_segment


class IndexBuilder:
    """Builds one index of the store in the directory `path`."""

    def __init__(
        self, path: Path, database: Database, codec: Codec, dimension: int, progress: Progress | None = None
    ) -> None:
        """Take the present state of the store, which nobody else changes meanwhile."""
        self._path = path
        self._database = database
        self._codec = codec
        self._dimension = dimension
        self._progress = progress or (lambda *_: None)
        with database.reading() as session:
            self._rows = tables.searchable_rows(session)
            self._segments = {record.id or 0: record for record in tables.segment_records(session)}
            self._index_records = derived_rows.read(session)
        self._opened: dict[int, Segment] = {}

    def build(self, kind: IndexKind, options: IvfOptions, retrain: bool) -> IndexReport:
        """Build an index, or extend the one that there is to all segments; what of it is damaged is made anew.

        Raises:
            SettingError: an unknown kind, or a value that does not fit.
            StoreEmptyError: there is nothing to index.
            StoreCorruptError: a segment is damaged.
            StoreSpaceError: the disk is full.
        """
        started = time.monotonic()
        check_kind(kind)
        options.check()
        if kind == "rabitq":
            self._check_rabitq(options)
        if not len(self._rows):
            raise StoreEmptyError(f"{self._path}: the store holds no samples; ingest some before you index them")
        there = None if retrain else self._index_records.get(kind)
        if kind == "ivf" and there is not None and there.intact:
            options = self._settled(from_text(IvfParameters, there.parameters, self._path), options)
        found = repairing.Inspection(None)
        if there is not None:
            found = repairing.inspect(self._path, there, self._segments, self._dimension, self._progress)
        existing = found.sound
        covered = set() if existing is None else {part.segment_id for part in existing.parts}
        new = [int(id) for id in np.unique(self._rows.segments) if int(id) not in covered]
        if existing is not None and found.damaged:
            with self._database.writing() as session:
                derived_rows.delete_parts(session, kind, found.damaged)
        if kind == "rabitq":
            self._build_rabitq(existing, new)
        elif existing is None:
            self._build_ivf(options)
        else:
            self._extend_ivf(existing, new, set(found.damaged))
        garbage.remove_garbage(self._path, self._database)  # the index that this one replaces
        with self._database.reading() as session:
            record, live = derived_rows.read(session)[kind], tables.live_counts(session)
        info = index_info(self._path, record, live, self._codec)
        return IndexReport(
            name=kind,
            trained=existing is None,
            added=int(np.isin(self._rows.segments, new).sum()),
            repaired=found.problems,
            covered=info.covered,
            uncovered=info.uncovered,
            bytes=info.bytes,
            seconds=time.monotonic() - started,
            parameters=info.parameters,
            advice=info.advice,
        )

    def _build_ivf(self, options: IvfOptions) -> None:
        made = self._list_maker().make(options)
        build = made.parameters.build
        shared = part_writing.write_arrays(self._path, f"{build}.safetensors", {"centroids": made.centroids})
        parts = [self._list_part(build, segment_id, lists) for segment_id, lists in made.of_segments.items()]
        self._record(derived_rows.new_record("ivf", made.parameters, shared), parts, replaces=True)

    def _settled(self, parameters: IvfParameters, options: IvfOptions) -> IvfOptions:
        """The options that the index was built with, which those given now, if any, must not contradict.

        Raises:
            SettingError: they do.
        """
        asked = (options.nlist, options.nprobe, options.train_sample)
        if asked != (None, None, None) or options.recall not in (None, parameters.recall_target):
            raise SettingError(
                f"{self._path}: there is an index 'ivf' with settings of its own: add --retrain to build it anew "
                "with others, or leave them out to extend it"
            )
        return IvfOptions(
            parameters.asked_nlist,
            parameters.asked_nprobe,
            parameters.asked_train_sample,
            parameters.recall_target,
        )

    def _extend_ivf(self, existing: IndexRecord, new: Sequence[int], known: Container[int]) -> None:
        """Give segments a part; rows of the `known` ones were counted when they were covered first."""
        if not new:
            return
        parameters = from_text(IvfParameters, existing.parameters, self._path)
        centroids = part_reading.load_centroids(self._path, existing, parameters)
        assigned = self._list_maker().assign([centroids], new)
        parts = [
            self._list_part(parameters.build, segment_id, of_one[0][0]) for segment_id, of_one in assigned.items()
        ]
        added = [of_one[0][1] for segment_id, of_one in assigned.items() if segment_id not in known]
        if added:
            cosines = np.concatenate(added)
            rows = parameters.added_rows + len(cosines)
            total = parameters.added_rows * parameters.added_similarity + float(cosines.sum(dtype=np.float64))
            parameters = replace(parameters, added_rows=rows, added_similarity=total / rows)
        self._record(derived_rows.with_parameters(existing, parameters), parts, replaces=False)

    def _list_part(
        self, build: str, segment_id: int, lists: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    ) -> PartRecord:
        name = part_name(build, self._segments[segment_id].name, "ivf")
        return PartRecord(segment_id, part_writing.write_arrays(self._path, name, {"lists": lists}), len(lists))

    def _build_rabitq(self, existing: IndexRecord | None, new: Sequence[int]) -> None:
        record = existing or derived_rows.new_record("rabitq", RabitqParameters(uuid.uuid4().hex[:16]), None)
        build = from_text(RabitqParameters, record.parameters, self._path).build
        for done, segment_id in enumerate(new):
            self._progress("encode", done, len(new))
            segment = self._segment(segment_id)
            name = part_name(build, self._segments[segment_id].name, "rabitq")
            file = part_writing.write_codes(self._path, name, coded_segment(segment))
            part = PartRecord(segment_id, file, segment.rows)
            self._record(record, [part], replaces=existing is None and done == 0)
        self._progress("encode", len(new), len(new))

    def _record(self, record: IndexRecord, parts: Sequence[PartRecord], replaces: bool) -> None:
        """Name index and parts in one transaction."""
        with self._database.writing() as session:
            if replaces:
                derived_rows.insert_index(session, record)
            else:
                derived_rows.update_index(session, record)
            derived_rows.insert_parts(session, record.kind, parts)

    def _check_rabitq(self, options: IvfOptions) -> None:
        if options != IvfOptions():
            raise SettingError(
                "--nlist, --nprobe, --recall and --train-sample are of index 'ivf': leave them out with 'rabitq'"
            )
        if not self._codec.gains_from_rabitq:
            raise SettingError(
                f"{self._path}: the store itself keeps one bit per number, as 'rabitq' would: search it as it is, "
                "or build an index with --type ivf"
            )

    def _list_maker(self) -> ListMaker:
        return ListMaker(self._rows, self._segment, self._codec, self._dimension, CpuScan(), self._progress)

    def _segment(self, segment_id: int) -> Segment:
        if segment_id not in self._opened:
            self._opened[segment_id] = open_segment(self._path, self._segments[segment_id], self._dimension)
        return self._opened[segment_id]


def drop(path: Path, database: Database, kind: str) -> None:
    """Forget the index of that kind and delete its files.

    Raises:
        SettingError: no index is of that kind.
        IndexNotFoundError: the store has none of it.
    """
    check_kind(kind)
    with database.writing() as session:
        if not derived_rows.delete_index(session, kind):
            raise IndexNotFoundError(f"{path}: there is no index {kind!r} to drop; 'rapidin info' shows which are")
    garbage.remove_garbage(path, database)


def check_kind(kind: str) -> None:
    """Check that there are indexes of that kind.

    Raises:
        SettingError: there are not.
    """
    if kind not in KINDS:
        raise SettingError(f"index type {kind!r} is unknown: choose from {', '.join(KINDS)}")

"""A store: training samples in SQLite and their vectors in FAISS files, in one directory.

A store knows samples, vectors and settings, and nothing of models, gradients or text. Opening it reads only the
settings; vectors are read by a search or by `Store.verify`.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rapidin.errors import SampleNotFoundError, SettingError
from rapidin.records import CompactReport, DerivedReport, Progress, Sample, StoreInfo, VerifyReport
from rapidin.settings import IndexKind, StoreSettings
from rapidin.storage.catalog import compile_filters, sample_of, tables
from rapidin.storage.concurrency import writer_lock
from rapidin.storage.creation import Opened, check_place, create_store, open_store
from rapidin.storage.derived import (
    CURVATURE,
    CurvatureState,
    DerivedKind,
    IvfOptions,
    StepProgress,
    StoreFacts,
    derived_records,
    drop_derived,
    index_kinds,
    kind_named,
)
from rapidin.storage.maintenance import compact_store, store_info, verify_store
from rapidin.storage.scan import CpuScan, Scan
from rapidin.storage.snapshot import Snapshot
from rapidin.storage.store_files import DATABASE_NAME, file_errors
from rapidin.storage.store_state import NewestState
from rapidin.storage.store_writer import StoreWriter
from rapidin.storage.vectors import codec_named


class Store:
    """An open store; one writer and any number of readers, in any number of processes, use it at a time.

    Attributes:
        path: directory of the store.
        settings: settings that it was created with.
        created: time at which it was created, ISO 8601 in UTC.
        format_version: version of the format of its files.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        """Use `create` or `open` instead."""
        self.path = path
        self.settings = opened.settings
        self.created = opened.created
        self.format_version = opened.format_version
        self._database = opened.database
        dimension, codec = self.settings.projection.dimension, codec_named(self.settings.codec.name)
        self._scan: Scan = CpuScan()
        self._states = NewestState(path, self._database, dimension, codec, self._scan, self.settings.probe_shape)

    @classmethod
    def create(cls, path: str | Path, settings: StoreSettings) -> Self:
        """Create an empty store at `path`, where nothing or an empty directory is, and open it.

        Raises:
            StoreError: something else is there, or the place cannot be written to.
            StoreLockedError: another process is creating it.
        """
        create_store(Path(path), settings)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the store at `path`; a store of an older format is migrated.

        Raises:
            StoreNotFoundError: there is no store.
            StoreFormatError: `path` is a file or no store, or a newer rapidin wrote it.
            StoreCorruptError: its database is damaged.
            StoreLockedError: another process is writing to a store of an older format, and does not finish.
        """
        return cls(Path(path), open_store(Path(path)))

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether a store is at `path`; the store may be damaged.

        Raises:
            StoreError: no store can be at `path`, for example because the name is too long.
        """
        with file_errors(Path(path)):
            return (Path(path) / DATABASE_NAME).is_file()

    @staticmethod
    def check_place(path: str | Path) -> None:
        """Check, without changing anything, that `create` can make a store at `path`.

        Raises:
            StoreError: something else is there, or the place cannot be written to.
        """
        check_place(Path(path))

    @contextmanager
    def writer(self) -> Iterator[StoreWriter]:
        """Hold the right to write until the end of the ``with``.

        Files that an interrupted commit left are removed first.

        Raises:
            StoreLockedError: another process is writing.
            StoreError: the store cannot be written to.
        """
        with writer_lock(self.path):
            codec = codec_named(self.settings.codec.name)
            dimension, probe_shape = self.settings.projection.dimension, self.settings.probe_shape
            writer = StoreWriter(self.path, self._database, dimension, codec, self._scan, probe_shape)
            writer.remove_garbage()
            try:
                yield writer
            finally:
                writer.close()

    def snapshot(self, scan: Scan | None = None) -> Snapshot:
        """Open the present state for searches; use it in a ``with``.

        Args:
            scan: scan that compares vectors if a search is exact; None: the CPU compares them. Candidates of
                indexes are always compared by the CPU.

        Raises:
            StoreCorruptError: the database is damaged.
        """
        return Snapshot(self.path, self._database, self._states, self._scan if scan is None else scan)

    def content_hashes(self, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return the content hash and the metadata hash of the live samples among `ids`, by id."""
        with self._database.reading() as session:
            return tables.content_hashes(session, list(ids))

    def get(self, id: str) -> Sample:
        """Return the live sample with an id.

        Raises:
            SampleNotFoundError: no live sample has the id.
        """
        with self._database.reading() as session:
            for row in tables.live_rows(session, [id]):
                return sample_of(row)
        raise SampleNotFoundError(f"{self.path}: no sample has the id {id!r}; 'rapidin list' shows them")

    def list(self, where: Sequence[str] = (), limit: int | None = None, offset: int = 0) -> builtins.list[Sample]:
        """Return live samples that meet all filters, in the order in which they were stored.

        Args:
            where: filter expressions, see `filters`.
            limit: maximum number of samples; None: all.
            offset: number of samples to leave out at the beginning.

        Raises:
            FilterError: a filter cannot be read or asks for an unknown field.
            SettingError: limit or offset is negative.
        """
        if offset < 0 or (limit is not None and limit < 0):
            raise SettingError(f"limit {limit} and offset {offset} must not be negative")
        with self._database.reading() as session:
            # Keys first: SQLite would carry whole rows along.
            keys = tables.live_keys(session, compile_filters(where, session), limit, offset)
            found = []
            for chunk in tables.chunks(keys.tolist()):
                rows = tables.rows_by_key(session, chunk)
                found += [sample_of(rows[key]) for key in chunk]
            return found

    def count(self, where: Sequence[str] = ()) -> int:
        """Return the number of live samples that meet all filters.

        Raises:
            FilterError: a filter cannot be read or asks for an unknown field.
        """
        with self._database.reading() as session:
            return tables.live_count(session, compile_filters(where, session))

    def delete(self, ids: Sequence[str] = (), where: Sequence[str] = ()) -> int:
        """Delete samples that have one of some ids and meet all of some filters.

        Either ids or filters may be left out, and then they do not matter. Searches no longer find the samples;
        their vectors stay on disk until the store is compacted.

        Returns:
            The number of samples deleted.

        Raises:
            SampleNotFoundError: no live sample has one of the ids; nothing is deleted.
            FilterError: a filter cannot be read or asks for an unknown field.
            SettingError: neither ids nor filters are given.
            StoreLockedError: another process is writing.
        """
        wanted = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        if not wanted and not where:
            raise SettingError("nothing to delete: give ids or a filter")
        with writer_lock(self.path), self._database.writing() as session:
            unknown = set(wanted) - tables.content_hashes(session, wanted).keys()
            if unknown:
                raise SampleNotFoundError(
                    f"{self.path}: no sample has the id {min(unknown)!r}; nothing was deleted"
                )
            if where:
                matching = set(tables.searchable_ids(session, compile_filters(where, session)))
                wanted = [id for id in wanted if id in matching] if wanted else sorted(matching)
            return tables.mark_deleted(session, wanted)

    def build_index(
        self,
        kind: IndexKind,
        *,
        nlist: int | None = None,
        nprobe: int | None = None,
        train_sample: int | None = None,
        recall: float | None = None,
        retrain: bool = False,
        on_progress: StepProgress | None = None,
    ) -> DerivedReport:
        """Build an index for approximate search, or extend one to samples that were stored later.

        An index that is there is read and checked; parts of it that are missing or damaged are made again.

        Args:
            kind: ``ivf`` (lists of similar vectors; needs clusters) or ``rabitq`` (one bit per number).
            nlist: number of lists of ``ivf``; None: the number near 4·√samples for which searches read least.
            nprobe: number of lists that a search reads; None: as many as `recall` takes, which is measured.
            train_sample: number of vectors to make lists from; None: at most 1 GiB of them in single precision.
            recall: share of the true ten best that a search of ``ivf`` is to find, in (0, 1]; None: 0.95.
            retrain: whether to build all of the index again instead of extending it.
            on_progress: function that is told the name of a step, how much is done of it, and how much there is.

        Raises:
            SettingError: a value cannot be used.
            StoreEmptyError: the store holds no samples.
            StoreLockedError: another process is writing.
            StoreCorruptError: a segment is damaged.
            StoreSpaceError: the disk is full.
        """
        options = IvfOptions(nlist, nprobe, train_sample, recall)
        return self._built(_index_kind(kind), options, retrain, on_progress)

    def drop_index(self, kind: IndexKind) -> None:
        """Delete an index; nothing but the speed of searches is lost.

        Raises:
            SettingError: no index is of that kind.
            IndexNotFoundError: the store has no index of that kind.
            StoreLockedError: another process is writing.
        """
        self._dropped(_index_kind(kind))

    def build_derived(
        self, kind: str, options: object = None, *, retrain: bool = False, on_progress: StepProgress | None = None
    ) -> DerivedReport:
        """Build derived data of any kind, or extend it to samples that were stored later.

        Damaged parts are made again.

        Args:
            kind: name of the kind, see `derived.kinds`.
            options: options of the kind.
            retrain: whether to build all of it again instead of extending it.
            on_progress: function that is told the name of a step, how much is done of it, and how much there is.

        Raises:
            SettingError: this rapidin knows no such kind, or an option cannot be used.
            StoreEmptyError: the store holds no samples.
            StoreLockedError: another process is writing.
            StoreCorruptError: a segment is damaged.
            StoreSpaceError: the disk is full.
        """
        return self._built(kind_named(kind), options, retrain, on_progress)

    def drop_derived(self, kind: str) -> None:
        """Delete derived data of any kind.

        Raises:
            SettingError: this rapidin knows no such kind.
            DerivedNotFoundError: the store has none of that kind.
            StoreLockedError: another process is writing.
        """
        self._dropped(kind_named(kind))

    def curvature_state(self, probes: int | None = None, more_samples: int = 0) -> CurvatureState:
        """Tell what curvature the store has and what it lacks, without reading a file.

        Args:
            probes: number of probes wanted; None: as many as it was built with, or 2,000.
            more_samples: number of samples that are about to be stored.
        """
        dimension, codec = self.settings.projection.dimension, codec_named(self.settings.codec.name)
        facts = StoreFacts(self.path, codec, dimension, {}, self.settings.probe_shape)
        with self._database.reading() as session:
            record = derived_records.read(session).get(CURVATURE.name)
            samples = sum(tables.live_counts(session).values())
        return CURVATURE.state(facts, record, probes, samples, more_samples)

    def compact(self, *, fraction: float = 0.0, on_progress: Progress | None = None) -> CompactReport:
        """Rewrite segments that hold deleted rows, merge small ones, and give the space back.

        Exact searches find what they found before, with the same scores to the last bit. Readers go on meanwhile;
        the first writer after them removes the files that they use. Indexes no longer cover samples that moved.

        Args:
            fraction: share of deleted rows above which a segment is rewritten.
            on_progress: function that is told after each new segment how many samples are done, and of how many.

        Raises:
            SettingError: `fraction` is not from 0 to 1.
            StoreCorruptError: a segment or row is damaged. Segments that were written before stay; nothing is
            lost. StoreSpaceError: there is no room for a new segment. Segments that were written before stay;
                nothing is lost.
            StoreLockedError: another process is writing.
        """
        with self.writer() as writer:
            return compact_store(self.path, self._database, writer.codec, writer.dimension, fraction, on_progress)

    def verify(self) -> VerifyReport:
        """Read everything and check it; damage is reported, not raised.

        Raises:
            DependencyError: faiss is not installed.
        """
        dimension, codec = self.settings.projection.dimension, codec_named(self.settings.codec.name)
        return verify_store(self.path, self._database, codec, dimension, self.settings.probe_shape)

    def info(self) -> StoreInfo:
        """Return what the store holds and how large it is."""
        return store_info(self.path, self._database, self.settings, self.created, self.format_version)

    def _built(
        self, kind: DerivedKind, options: object, retrain: bool, on_progress: StepProgress | None
    ) -> DerivedReport:
        with self.writer() as writer:
            return writer.build_derived(kind.name, options, retrain=retrain, on_progress=on_progress)

    def _dropped(self, kind: DerivedKind) -> None:
        with self.writer() as writer:
            drop_derived(self.path, self._database, kind)
            writer.remove_garbage()

    def close(self) -> None:
        """Close the database; a snapshot that is still open keeps its own connection until it is closed."""
        self._states.segments.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _index_kind(name: str) -> DerivedKind:
    """Return the kind of index with a name.

    Raises:
        SettingError: no kind of index has the name.
    """
    indexes = index_kinds()
    if name not in indexes:
        raise SettingError(f"index type {name!r} is unknown: choose from {', '.join(indexes)}")
    return indexes[name]

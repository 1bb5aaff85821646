"""A store: training samples in SQLite and their vectors in FAISS files, in one directory.

It knows samples, vectors and settings, nothing of models, gradients or text. Opening one reads the settings
only; vectors are touched by a search or `Store.verify`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import func, select

from rapidin.choices import ExportFormat
from rapidin.errors import SampleNotFoundError, SettingError
from rapidin.records import CompactReport, ExportReport, Sample, SegmentInfo, StoreInfo, VerifyReport
from rapidin.settings import StoreSettings
from rapidin.storage import tables
from rapidin.storage.codecs import CODECS
from rapidin.storage.compaction import compact_store
from rapidin.storage.conditions import compile_filters
from rapidin.storage.creation import Opened, check_place, create_store, open_store
from rapidin.storage.files import DATABASE_NAME, file_errors
from rapidin.storage.listening import Progress
from rapidin.storage.lock import writer_lock
from rapidin.storage.samples import sample_of
from rapidin.storage.schema import MetadataFieldRow, SampleRow
from rapidin.storage.snapshot import Snapshot
from rapidin.storage.verify import verify_store
from rapidin.storage.writer import StoreWriter


class Store:
    """An open store; one writer and any number of readers, in any number of processes, use it at a time.

    Attributes:
        path: of its directory.
        settings: what it was created with.
        created: when, ISO 8601 in UTC.
        format_version: of its files.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        """Use `create` or `open` instead."""
        self.path = path
        self.settings = opened.settings
        self.created = opened.created
        self.format_version = opened.format_version
        self._database = opened.database

    @classmethod
    def create(cls, path: str | Path, settings: StoreSettings) -> Self:
        """Make an empty store at `path`, where nothing or an empty directory is, and open it.

        Raises:
            StoreError: something else is there, or the place cannot be written to.
            StoreLockedError: another process is creating it.
        """
        create_store(Path(path), settings)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the store at `path`; one of an older format is migrated.

        Raises:
            StoreNotFoundError: there is none.
            StoreFormatError: `path` is a file or no store, or a newer rapidin wrote it.
            StoreCorruptError: its database is damaged.
        """
        return cls(Path(path), open_store(Path(path)))

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a store is at `path`; it may still be a damaged one.

        Raises:
            StoreError: there can be none, for example because the name is too long.
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
        """The right to write, until the end of the ``with``.

        What an interrupted commit left is removed first.

        Raises:
            StoreLockedError: another process has it.
            StoreError: the store cannot be written to.
        """
        with writer_lock(self.path):
            codec = CODECS[self.settings.codec.bits]
            writer = StoreWriter(self.path, self._database, self.settings.projection.dimension, codec)
            writer.remove_garbage()
            try:
                yield writer
            finally:
                writer.close()

    def snapshot(self) -> Snapshot:
        """The present state, for searching; use it in a ``with``.

        Raises:
            StoreCorruptError: the database is damaged.
        """
        return Snapshot(self.path, self._database, self.settings.projection.dimension)

    def content_hashes(self, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Content hash and metadata hash of the live samples among `ids`, by id."""
        with self._database.reading() as session:
            return tables.content_hashes(session, list(ids))

    def get(self, id: str) -> Sample:
        """The live sample with that id.

        Raises:
            SampleNotFoundError: there is none.
        """
        with self._database.reading() as session:
            for row in tables.live_rows(session, [id]):
                return sample_of(row)
        raise SampleNotFoundError(f"{self.path}: no sample has the id {id!r}; 'rapidin list' shows them")

    def list(self, where: Sequence[str] = (), limit: int | None = None, offset: int = 0) -> builtins.list[Sample]:
        """Live samples that meet all filters, in the order in which they were stored.

        Args:
            where: filter expressions, see `filters`.
            limit: samples at most; None for all.
            offset: samples to leave out at the beginning.

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
        """How many live samples meet all filters.

        Raises:
            FilterError: a filter cannot be read or asks for an unknown field.
        """
        with self._database.reading() as session:
            return tables.live_count(session, compile_filters(where, session))

    def delete(self, ids: Sequence[str] = (), where: Sequence[str] = ()) -> int:
        """Delete samples: those with the ids, those that meet all filters, or, given both, those that do both.

        Searches no longer find them; their vectors stay on disk until the store is compacted.

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

    def compact(self, *, fraction: float = 0.0, on_progress: Progress | None = None) -> CompactReport:
        """Rewrite segments that hold deleted rows, merge small ones, and give the space back.

        Scores stay the same to the last bit. Readers go on; what they use goes when a writer finds none.

        Args:
            fraction: a segment is rewritten where more than this part of its rows is deleted.
            on_progress: told after each new segment how many samples are done, and of how many.

        Raises:
            SettingError: `fraction` is not from 0 to 1.
            StoreCorruptError: a segment or row is damaged. What was done before stays; nothing is lost.
            StoreSpaceError: there is no room for a new segment; likewise.
            StoreLockedError: another process is writing.
        """
        with self.writer() as writer:
            return compact_store(self.path, self._database, writer, fraction, on_progress)

    def export(
        self,
        directory: str | Path,
        where: Sequence[str] = (),
        *,
        format: ExportFormat = "safetensors",
        on_progress: Progress | None = None,
    ) -> ExportReport:
        """Write the samples that meet all filters, and their vectors, for other programs; `transfer` says how.

        The directory must be new or empty; it appears when all is written.

        Raises:
            SettingError, FilterError: the format or a filter cannot be used.
            StoreError: something is at `directory`, or it cannot be written to, or there is no room.
            StoreCorruptError: a segment or row is damaged.
        """
        from rapidin.storage.exporting import export_snapshot  # with pyarrow, which nothing else here needs

        with self.snapshot() as snapshot:
            return export_snapshot(snapshot, self.settings, Path(directory), where, format, on_progress)

    def verify(self) -> VerifyReport:
        """Read everything and check it; damage is reported, not raised.

        Raises:
            DependencyError: faiss is not installed.
        """
        return verify_store(self.path, self._database, self.settings.projection.dimension)

    def info(self) -> StoreInfo:
        """What the store holds, and how large it is."""
        model, projection = self.settings.model, self.settings.projection
        with self._database.reading() as session:
            records = tables.segment_records(session)
            live = tables.live_counts(session)
            rows = session.scalar(select(func.count(SampleRow.key))) or 0
            fields = session.scalars(select(MetadataFieldRow.name).order_by(MetadataFieldRow.name)).all()
        segments = tuple(
            SegmentInfo(record.name, record.rows, live.get(record.id or 0, 0), record.bytes, record.checksum)
            for record in records
        )
        samples = sum(live.values())
        return StoreInfo(
            path=str(self.path),
            samples=samples,
            deleted=rows - samples,
            projection=projection.kind,
            projection_dim=projection.dimension,
            shuffles=projection.shuffles,
            seed=projection.seed,
            layer_norm=projection.layer_norm,
            bits=self.settings.codec.bits,
            parameters=sum(math.prod(parameter.shape) for parameter in self.settings.parameters),
            parameter_tensors=len(self.settings.parameters),
            model=model.model,
            adapter=model.adapter,
            dtype=model.dtype,
            quantization=model.quantization,
            modules=model.modules,
            max_length=self.settings.text.max_length,
            loss=self.settings.text.loss,
            bytes_vectors=sum(record.bytes for record in records),
            bytes_metadata=self._database.size(),
            format_version=self.format_version,
            created=self.created,
            indexes=("exact",),
            segments=segments,
            metadata_fields=tuple(fields),
        )

    def close(self) -> None:
        """Close the database; a snapshot that is still open keeps its own connection until it is closed."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

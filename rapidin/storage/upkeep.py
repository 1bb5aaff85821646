"""The part of `Store` that keeps a store in shape and takes it elsewhere: compaction and export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rapidin.records import CompactReport, ExportReport, Progress
from rapidin.settings import ExportFormat, StoreSettings
from rapidin.storage.catalog import Database
from rapidin.storage.maintenance import compact_store
from rapidin.storage.scan import Scan
from rapidin.storage.snapshot import Snapshot
from rapidin.storage.store_writer import StoreWriter


class Upkeep(ABC):
    """Base of `Store`."""

    path: Path
    settings: StoreSettings
    _database: Database

    @abstractmethod
    def writer(self) -> AbstractContextManager[StoreWriter]:
        """The right to write."""

    @abstractmethod
    def snapshot(self, scan: Scan | None = None) -> Snapshot:
        """The present state."""

    def compact(self, *, fraction: float = 0.0, on_progress: Progress | None = None) -> CompactReport:
        """Rewrite segments that hold deleted rows, merge small ones, and give the space back.

        Exact searches find what they found before, with the same scores to the last bit. Readers go on meanwhile;
        the files that they use go with the first writer after them. Indexes no longer cover what moved.

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
        """Write samples and vectors to a new directory, for other programs; `transfer` says how.

        Args:
            directory: where nothing or an empty directory is; it appears when all is written.
            where: filter expressions that a sample must all meet.
            format: of the vectors, ``safetensors`` or ``numpy``.
            on_progress: told how many samples are done, and of how many.

        Raises:
            SettingError, FilterError: the format or a filter cannot be used.
            StoreError: something is at `directory`, or it cannot be written to.
            StoreCorruptError: a segment or row is damaged.
            StoreSpaceError: there is no room for it.
        """
        from rapidin.storage.transfer import export_snapshot

        with self.snapshot() as snapshot:
            return export_snapshot(snapshot, self.settings, Path(directory), where, format, on_progress)

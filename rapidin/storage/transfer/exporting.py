"""Writing an export; `export_format` says what it consists of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from rapidin.errors import SettingError, StoreCorruptError, StoreError
from rapidin.records import ExportReport, Progress, Sample
from rapidin.settings import ExportFormat, StoreSettings
from rapidin.storage.catalog import spans_text
from rapidin.storage.derived import CURVATURE, Travelling, copy_file, left_out
from rapidin.storage.filters import metadata_text
from rapidin.storage.snapshot import Snapshot
from rapidin.storage.store import Store
from rapidin.storage.store_files import file_errors
from rapidin.storage.transfer.built_aside import built_aside
from rapidin.storage.transfer.export_format import (
    MANIFEST_NAME,
    SAMPLES_NAME,
    SCHEMA,
    SPANS,
    CurvatureFile,
    Manifest,
    VectorFile,
    header,
    shards,
)
from rapidin.storage.vectors import segment_writing
from rapidin.support import sync


def export_vectors(
    store: Store,
    directory: str | Path,
    where: Sequence[str] = (),
    *,
    format: ExportFormat = "safetensors",
    on_progress: Progress | None = None,
) -> ExportReport:
    """Write samples and vectors of a store to a new directory, in the format that `export_format` describes.

    The curvature is written, too, unless there are filters.

    Args:
        store: open store to export from; it is only read.
        directory: path of a new or empty directory; it appears when everything is written.
        where: filter expressions, all of which a sample must meet.
        format: format of the vectors, ``safetensors`` or ``numpy``.
        on_progress: function that takes the number of samples done and the number of all samples.

    Returns:
        A report of what was written.

    Raises:
        SettingError: there is no such format.
        FilterError: a filter cannot be read or names an unknown field.
        StoreError: `directory` holds something, or cannot be written to.
        StoreCorruptError: a segment or row is damaged.
        StoreSpaceError: the disk has no room for the export.
    """
    if format not in get_args(ExportFormat):
        raise SettingError(f"export format {format!r} is unknown; take safetensors or numpy")
    with store.snapshot() as snapshot:
        # The curvature of all samples would be that of a store which lacks most of them.
        data = (
            next((one for one in snapshot.travelling() if one.kind == CURVATURE.name), None) if not where else None
        )
        report = _export(snapshot, store.settings, Path(directory), where, format, data, on_progress)
    info = store.info()
    kinds = [derived.name for derived in (*info.indexes[1:], *info.derived)]
    notes = left_out((kind for kind in kinds if data is None or kind != data.kind), Path(directory))
    return replace(report, notes=notes)


def _export(
    snapshot: Snapshot,
    settings: StoreSettings,
    directory: Path,
    where: Sequence[str],
    kind: ExportFormat,
    curvature: Travelling | None,
    on_progress: Progress | None,
) -> ExportReport:
    started = time.monotonic()
    dimension, count = settings.projection.dimension, snapshot.count(where)
    with built_aside(directory) as partial:
        size = 0 if curvature is None else curvature.file.bytes
        segment_writing.check_space(partial, count, 4 * dimension, size)
        files = shards(count, dimension, kind)
        with _samples_file(partial / SAMPLES_NAME) as table, _Vectors(partial, files, kind, dimension) as vectors:
            done = 0
            for block in snapshot.blocks(where):
                if not np.isfinite(block.vectors).all():
                    raise StoreCorruptError(
                        f"{directory}: a vector of samples {done} to {done + len(block.samples) - 1} is beyond "
                        "single precision; run 'rapidin verify'"
                    )
                with _errors(partial / SAMPLES_NAME):
                    table.write_batch(_record_batch(block.samples))
                vectors.write(block.vectors)
                done += len(block.samples)
                if on_progress is not None:
                    on_progress(done, count)
        about = (
            f"rapidin export: row i of {SAMPLES_NAME} belongs to vector i of the files below, float32 [rows, "
            f"{dimension}]; 'rapidin import' takes it into a store"
        )
        manifest = Manifest(
            about=about,
            format=kind,
            samples=count,
            files=files,
            settings=settings,
            curvature=None if curvature is None else _copied(curvature, partial),
        )
        with file_errors(partial):
            (partial / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
            for path in partial.iterdir():
                sync(path)
            size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    return ExportReport(str(directory), kind, count, size, time.monotonic() - started)


def _copied(curvature: Travelling, directory: Path) -> CurvatureFile:
    """Copy the file of a curvature into an export, and describe it."""
    file = copy_file(curvature.path, directory, CURVATURE.folder, curvature.file.name)
    if file != curvature.file:
        raise StoreCorruptError(f"{curvature.path}: it changed while it was copied; run 'rapidin verify'")
    return CurvatureFile(name=file.name, bytes=file.bytes, checksum=file.checksum, parameters=curvature.parameters)


class _Vectors:
    """Writer of the files of vectors, one after the other."""

    def __init__(self, directory: Path, files: Sequence[VectorFile], kind: ExportFormat, dimension: int) -> None:
        self._directory = directory
        self._kind = kind
        self._dimension = dimension
        self._coming = iter(files)
        self._room = 0  # number of rows that the open file still lacks
        self._path = directory
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def write(self, vectors: NDArray[np.float32]) -> None:
        """Append vectors [m, K]."""
        while len(vectors):
            if not self._room:
                self._next()
            now, vectors = vectors[: self._room], vectors[self._room :]
            with file_errors(self._path):
                if self._file is not None:
                    self._file.write(np.ascontiguousarray(now, "<f4").data)
            self._room -= len(now)

    def _next(self) -> None:
        file = next(self._coming)
        self._path, self._room = self._directory / file.name, file.rows
        with file_errors(self._path):
            self._stack.close()
            self._file = self._stack.enter_context(self._path.open("wb"))
            self._file.write(header(self._kind, file.rows, self._dimension))

    def __enter__(self) -> _Vectors:
        return self

    def __exit__(self, *_: object) -> None:
        with file_errors(self._path):
            self._stack.close()


@contextmanager
def _samples_file(path: Path) -> Iterator[Any]:
    """Open the file of samples, as a writer of record batches."""
    with _errors(path):
        writer = pa.parquet.ParquetWriter(path, SCHEMA)
    try:
        yield writer
    finally:
        with _errors(path):
            writer.close()


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors into errors of a store."""
    with file_errors(path):
        try:
            yield
        except pa.ArrowException as error:
            raise StoreError(f"{path}: cannot be written ({' '.join(str(error).split())})") from error


def _record_batch(samples: Sequence[Sample]) -> pa.RecordBatch:
    columns = {name: [getattr(sample, name) for sample in samples] for name in SCHEMA.names}
    columns["metadata"] = [metadata_text(sample.metadata) for sample in samples]
    columns[SPANS.name] = [spans_text(sample.target_spans) for sample in samples]
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)

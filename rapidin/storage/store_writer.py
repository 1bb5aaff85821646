"""Writing to a store: a batch of samples with their vectors becomes one segment, all of it or nothing.

The order of the steps makes a kill harmless: the file is complete and on disk under its final name before one
transaction records it, adds its samples and marks the samples that they replace.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import RapidinError, SampleNotFoundError, StoreError, StoreMismatchError
from rapidin.records import DerivedReport
from rapidin.settings import ProbeShape
from rapidin.storage.catalog import Database, MetadataChange, NewSample, sample_changes, sample_values, tables
from rapidin.storage.derived import StepProgress, Travelling, build_derived, kind_named, take
from rapidin.storage.maintenance import garbage
from rapidin.storage.scan import Scan
from rapidin.storage.vectors import Codec, segment_writing


class StoreWriter:
    """The only writer of a store. `Store.writer` makes it, and holds the writer's lock meanwhile.

    Attributes:
        codec: codec of the vectors.
        dimension: K.
    """

    def __init__(
        self, path: Path, database: Database, dimension: int, codec: Codec, scan: Scan, probe_shape: ProbeShape
    ) -> None:
        """Make a writer of the store in the directory `path`. The caller holds the writer's lock."""
        self.codec = codec
        self.dimension = dimension
        self._probe_shape = probe_shape
        self._path = path
        self._database = database
        self._scan = scan
        self._closed = False

    def commit(
        self, samples: Sequence[NewSample], vectors: NDArray[np.float32], scales: NDArray[Any] | None = None
    ) -> None:
        """Store samples and their vectors; live samples of the same ids are replaced.

        If this returns, the whole batch is on disk and visible to new snapshots. If it raises, or the process
        dies, nothing of the batch is.

        Args:
            samples: samples whose ids differ from each other.
            vectors: RapidGrads, float32 [n, K], which are not divided by `scales` yet.
            scales: positive numbers [n] that bring the vectors into the range of half precision, if the store
                keeps half precision; a search multiplies its scores with them. None means that all are 1.

        Raises:
            StoreMismatchError: the vectors' shape or type does not fit the samples or the store.
            StoreError: a vector or scale cannot be stored, or an id was given twice; the message names the id.
            StoreSpaceError: the disk is full.
        """
        self._check_open()
        scales32 = np.ones(len(samples), np.float32) if scales is None else _as_float32(scales)
        values = check_batch(samples, vectors, scales32, self.dimension, self.codec)
        if not samples:
            return
        segment_writing.check_space(self._path, len(samples), self.codec.row_bytes(self.dimension))
        try:
            index, kept = segment_writing.coded(self.codec, vectors, scales32)
            record = segment_writing.write_segment(self._path, index, self.codec)
            self._record(record, values, kept, samples)
        except RapidinError:
            with suppress(RapidinError):  # the first error is the one to tell
                self.remove_garbage()
            raise

    def update_metadata(self, changes: Sequence[MetadataChange]) -> int:
        """Replace metadata, file and row of live samples whose text, and so their vector, stays the same.

        All changes are one transaction of a few statements for every 500 samples. Either all of them are made, or
        none if this raises.

        Args:
            changes: new values of samples whose ids differ from each other.

        Returns:
            The number of samples.

        Raises:
            SampleNotFoundError: no live sample has one of the ids.
            StoreMismatchError: a content hash is not that of the stored sample, which then needs a new vector.
            StoreError: an id was given twice, or metadata cannot be stored.
        """
        self._check_open()
        _check_ids(changes)
        if not changes:
            return 0
        try:
            with self._database.writing() as session:
                sample_changes.change_metadata(session, changes)
        except (SampleNotFoundError, StoreMismatchError) as error:
            raise type(error)(f"{self._path}: {error}") from error
        return len(changes)

    def build_derived(
        self, kind: str, options: object = None, *, retrain: bool = False, on_progress: StepProgress | None = None
    ) -> DerivedReport:
        """Build derived data of any kind, or extend it, see `Store.build_derived`.

        Raises:
            SettingError: this rapidin knows no such kind, or an option cannot be used.
            StoreEmptyError: the store holds no samples.
            StoreCorruptError: a segment is damaged.
            StoreSpaceError: the disk is full.
        """
        self._check_open()
        report = build_derived(
            kind_named(kind),
            self._path,
            self._database,
            self.codec,
            self.dimension,
            self._probe_shape,
            self._scan,
            options,
            retrain,
            on_progress,
        )
        self.remove_garbage()  # files that were replaced
        return report

    def take_derived(self, data: Travelling) -> None:
        """Take derived data from a store that holds the same samples, in place of what there is of its kind.

        Args:
            data: the data, see `Snapshot.travelling`.

        Raises:
            StoreCorruptError: the file is not as it was written.
            StoreSpaceError: the disk is full.
        """
        self._check_open()
        take(data, self._path, self._database)
        self.remove_garbage()

    def remove_garbage(self) -> None:
        """Delete the files that the database does not name and no reader needs; see `garbage`."""
        garbage.remove_garbage(self._path, self._database)

    def close(self) -> None:
        """Refuse further work, because the lock is about to be released."""
        self._closed = True

    def _record(
        self,
        record: segment_writing.SegmentRecord,
        values: Sequence[dict[str, Any]],
        scales: NDArray[np.float32],
        samples: Sequence[NewSample],
    ) -> None:
        """Record the segment and its samples in one transaction."""
        with self._database.writing() as session:
            segment_id = tables.insert_segment(session, record)
            tables.mark_deleted(session, [sample.id for sample in samples])
            field_ids = tables.insert_metadata_fields(session, _metadata_names(samples))
            tables.insert_samples(session, values, segment_id, scales.tolist(), field_ids)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self._path}: this writer is closed; ask the store for a new one")


def check_batch(
    samples: Sequence[NewSample],
    vectors: NDArray[np.float32],
    scales: NDArray[np.float32],
    dimension: int,
    codec: Codec,
) -> list[dict[str, Any]]:
    """Check everything that `StoreWriter.commit` checks of its arguments, and return the columns of the samples.

    Raises:
        StoreMismatchError: the vectors' shape or type does not fit the samples or the store.
        StoreError: a vector or scale cannot be stored, or an id was given twice; the message names the id.
    """
    _check_shapes(len(samples), vectors, scales, dimension)
    _check_ids(samples)
    _check_numbers(samples, vectors, scales, codec)
    return [sample_values(sample) for sample in samples]


def _metadata_names(samples: Sequence[NewSample]) -> set[str]:
    return {name for sample in samples for name in sample.metadata}


def _as_float32(scales: NDArray[Any]) -> NDArray[np.float32]:
    # numbers out of range become infinite or zero, which is refused with the id
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(scales, dtype=np.float32)


def _check_shapes(count: int, vectors: NDArray[np.float32], scales: NDArray[np.float32], dimension: int) -> None:
    if vectors.dtype != np.float32 or vectors.shape != (count, dimension) or scales.shape != (count,):
        raise StoreMismatchError(
            f"{count} samples need float32 vectors of shape ({count}, {dimension}) and as many scales, "
            f"not {vectors.dtype} of shape {vectors.shape} and {scales.shape}"
        )


def _check_ids(samples: Sequence[NewSample | MetadataChange]) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise StoreError(f"sample {sample.id!r}: its id occurs twice in one batch; make the ids differ")
        seen.add(sample.id)


def _check_numbers(
    samples: Sequence[NewSample], vectors: NDArray[np.float32], scales: NDArray[np.float32], codec: Codec
) -> None:
    """Refuse vectors that the codec cannot keep, because searches would miss them or give wrong scores."""
    for sample, vector, scale in zip(samples, vectors, scales, strict=True):
        if not (np.isfinite(scale) and scale > 0):
            raise StoreError(f"sample {sample.id!r}: its scale {scale} is not a positive number")
        if not np.isfinite(vector).all():
            raise StoreError(f"sample {sample.id!r}: its vector is not finite; leave the sample out")
        refusal = codec.refusal(vector, float(scale))
        if refusal is not None:
            raise StoreError(f"sample {sample.id!r}: {refusal}")

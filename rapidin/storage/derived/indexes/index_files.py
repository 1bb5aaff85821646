"""Reading an index's files: nothing of them is used before size, checksum and shape agree with the database."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived.derived_files import read_array
from rapidin.storage.derived.derived_kind import check_part_row
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord, WrittenFile
from rapidin.storage.derived.indexes.parameters import IvfParameters, RabitqParameters
from rapidin.storage.store_files import INDEXES_NAME
from rapidin.storage.vectors import SUFFIX, Segment, SegmentRecord, codec_of_bits, open_segment


def title(kind: str) -> str:
    """The name of an index in messages."""
    return f"index {kind!r}"


def remedy(store: Path, kind: str) -> str:
    """Return the remedy for a damaged index, the end of a message."""
    return f"build it again with 'rapidin index {store} --type {kind} --retrain', or search with --exact"


def part_name(build: str, segment: str, suffix: str) -> str:
    """File name of a part; it holds index and segment, so that a row that leads to a wrong file is noticed."""
    return f"{build}-{Path(segment).stem}{suffix}"


def load_centroids(
    store: Path, record: DerivedRecord, parameters: IvfParameters, recheck: bool = False
) -> NDArray[np.float32]:
    """Centroids of an ``ivf`` index, float32 [nlist, r].

    Args:
        store: directory of the store.
        record: of the index.
        parameters: of the index.
        recheck: compute the checksum even if this process has done so before.

    Raises:
        StoreCorruptError: the file is missing or is not as it was written.
    """
    if record.file is None:
        raise StoreCorruptError(f"{store}/store.db: index 'ivf' names no file; {remedy(store, 'ivf')}")
    shape = (parameters.nlist, parameters.width)
    centroids: NDArray[np.float32] = read_array(
        store, INDEXES_NAME, record.file, "centroids", shape, np.float32, remedy(store, "ivf"), recheck
    )
    if not np.isfinite(centroids).all():
        raise StoreCorruptError(
            f"{store / INDEXES_NAME / record.file.name}: a centroid is not finite; {remedy(store, 'ivf')}"
        )
    return centroids


def load_lists(
    store: Path, parameters: IvfParameters, part: PartRecord, segment: SegmentRecord | None, recheck: bool = False
) -> NDArray[np.int32]:
    """The list of each row of a segment, int32 [rows].

    Args:
        store: directory of the store.
        parameters: of the index.
        part: that covers the segment.
        segment: None where there is no such segment.
        recheck: compute the checksum even if this process has done so before.

    Raises:
        StoreCorruptError: the file is missing or is not as it was written.
    """
    segment, file = _checked_part(store, "ivf", ".safetensors", parameters.build, part, segment)
    lists: NDArray[np.int32] = read_array(
        store, INDEXES_NAME, file, "lists", (segment.rows,), np.int32, remedy(store, "ivf"), recheck
    )
    if len(lists) and not (lists.min() >= 0 and lists.max() < parameters.nlist):
        raise StoreCorruptError(f"{store / INDEXES_NAME / file.name}: a row is in no list; {remedy(store, 'ivf')}")
    return lists


def open_codes(
    store: Path,
    parameters: RabitqParameters,
    part: PartRecord,
    segment: SegmentRecord | None,
    dimension: int,
    recheck: bool = False,
) -> Segment:
    """The coded vectors of a part of a ``rabitq`` index.

    Args:
        store: directory of the store.
        parameters: of the index.
        part: that covers the segment.
        segment: None where there is no such segment.
        dimension: K.
        recheck: compute the checksum even if this process has done so before.

    Raises:
        StoreCorruptError: the file is missing or is not as it was written.
    """
    segment, file = _checked_part(store, "rabitq", SUFFIX, parameters.build, part, segment)
    record = SegmentRecord(segment.id, file.name, part.rows, file.bytes, file.checksum, codec_of_bits(1).name)
    return open_segment(store, record, dimension, recheck, INDEXES_NAME, remedy(store, "rabitq"))


def _checked_part(
    store: Path, kind: str, suffix: str, build: str, part: PartRecord, segment: SegmentRecord | None
) -> tuple[SegmentRecord, WrittenFile]:
    """Check that a part's row names a part of this index for this segment; the segment, and the file.

    Raises:
        StoreCorruptError: it does not.
    """
    segment = check_part_row(store, part, segment, title(kind), remedy(store, kind))
    if part.file is None or part.file.name != part_name(build, segment.name, suffix):
        raise StoreCorruptError(
            f"{store}/store.db: the row of a part of {title(kind)} was altered; {remedy(store, kind)}"
        )
    return segment, part.file

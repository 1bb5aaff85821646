"""Reading an index's files: nothing of them is used before size, checksum and shape agree with the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived.derived_rows import IndexRecord, PartRecord, WrittenFile, advice, check_part
from rapidin.storage.derived.indexes.parameters import IvfParameters, RabitqParameters
from rapidin.storage.store_files import INDEXES_NAME, file_errors
from rapidin.storage.vectors import VERIFIED_FILES, Segment, SegmentRecord, codec_of_bits, open_segment, place_of


def load_centroids(
    store: Path, record: IndexRecord, parameters: IvfParameters, recheck: bool = False
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
        raise StoreCorruptError(f"{store}/store.db: index 'ivf' names no file; {advice(store, 'ivf')}")
    shape = (parameters.nlist, parameters.width)
    centroids: NDArray[np.float32] = _array(store, record.file, "centroids", shape, np.float32, recheck)
    if not np.isfinite(centroids).all():
        raise StoreCorruptError(
            f"{store / INDEXES_NAME / record.file.name}: a centroid is not finite; {advice(store, 'ivf')}"
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
    segment = check_part(store, "ivf", parameters.build, part, segment)
    lists: NDArray[np.int32] = _array(store, part.file, "lists", (segment.rows,), np.int32, recheck)
    if len(lists) and not (lists.min() >= 0 and lists.max() < parameters.nlist):
        raise StoreCorruptError(
            f"{store / INDEXES_NAME / part.file.name}: a row is in no list; {advice(store, 'ivf')}"
        )
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
    segment = check_part(store, "rabitq", parameters.build, part, segment)
    file = part.file
    record = SegmentRecord(segment.id, file.name, part.rows, file.bytes, file.checksum, codec_of_bits(1).name)
    return open_segment(store, record, dimension, recheck, INDEXES_NAME, advice(store, "rabitq"))


def _array(
    store: Path, file: WrittenFile, name: str, shape: tuple[int, ...], dtype: type[np.generic], recheck: bool
) -> NDArray[Any]:
    path = place_of(store, INDEXES_NAME, file.name)
    VERIFIED_FILES.verify(path, file.bytes, file.checksum, advice(store, "ivf"), recheck)
    try:
        with file_errors(path):
            array = load_file(path).get(name)
    except SafetensorError as error:
        raise StoreCorruptError(f"{path}: it is no safetensors file ({error}); {advice(store, 'ivf')}") from error
    if array is None or array.shape != shape or array.dtype != dtype:
        raise StoreCorruptError(f"{path}: it does not hold {name!r} of shape {shape}; {advice(store, 'ivf')}")
    return array

"""What `Store.info` and `Store.verify` say of indexes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from rapidin.errors import StoreError, StoreFormatError
from rapidin.records import IndexInfo
from rapidin.storage.derived.derived_rows import IndexRecord, check_row
from rapidin.storage.derived.indexes import part_reading
from rapidin.storage.derived.indexes.parameters import LEAST_COVERED, IvfParameters, RabitqParameters, from_text
from rapidin.storage.derived.repairing import missing_files
from rapidin.storage.vectors import Codec, SegmentRecord


def index_info(store: Path, record: IndexRecord, live: Mapping[int, int], codec: Codec) -> IndexInfo:
    """What an index is and covers, from the database and the sizes of files.

    Args:
        store: directory of the store.
        record: of the index.
        live: live samples of each segment that has any.
        codec: codec of the store.
    """
    samples = sum(live.values())
    covered = sum(live.get(part.segment_id, 0) for part in record.parts)
    if not record.intact:
        remedy = f"its row in store.db was altered: {_command(store, record)} builds it anew"
        return IndexInfo(record.kind, covered, samples - covered, 0, {}, remedy)
    told = None
    if missing := missing_files(store, record):
        told = (
            f"{missing:,} of its {len(record.files):,} files are missing or damaged: {_command(store, record)} "
            "makes them anew"
        )
    elif covered < LEAST_COVERED * samples:
        told = (
            f"it covers {covered:,} of {samples:,} samples, so searches take it only if told to: "
            f"{_command(store, record)} extends it"
        )
    elif record.kind == "ivf":
        try:
            told = from_text(IvfParameters, record.parameters, store).advice(samples, codec.gains_from_rabitq)
        except StoreFormatError as error:
            told = str(error)
    parameters = json.loads(record.parameters)
    return IndexInfo(record.kind, covered, samples - covered, record.bytes, parameters, told)


def checks(
    store: Path, record: IndexRecord, segments: Mapping[int, SegmentRecord], dimension: int
) -> Iterator[Callable[[], object]]:
    """Checks of an index's row and of each of its files, each of which raises a `StoreError` about what is wrong.

    Args:
        store: directory of the store.
        record: of the index.
        segments: of the store, by database id.
        dimension: K.
    """
    yield partial(check_row, store, record)
    if not record.intact:
        return
    if record.kind == "ivf":
        lists = from_text(IvfParameters, record.parameters, store)
        yield partial(part_reading.load_centroids, store, record, lists, recheck=True)
        for part in record.parts:
            yield partial(part_reading.load_lists, store, lists, part, segments.get(part.segment_id), recheck=True)
    elif record.kind == "rabitq":
        codes = from_text(RabitqParameters, record.parameters, store)
        for part in record.parts:
            segment = segments.get(part.segment_id)
            yield partial(part_reading.open_codes, store, codes, part, segment, dimension, recheck=True)
    else:
        yield partial(_unknown, store, record)


def _command(store: Path, record: IndexRecord) -> str:
    return f"'rapidin index {store} --type {record.kind}'"


def _unknown(store: Path, record: IndexRecord) -> None:
    raise StoreError(f"{store}/store.db: index {record.kind!r} is unknown here; upgrade rapidin")

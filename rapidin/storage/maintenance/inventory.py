"""The contents and size of a store, from the database and the sizes of files."""

from __future__ import annotations

import math
from pathlib import Path

from sqlalchemy import func, select

from rapidin.records import DerivedInfo, SegmentInfo, StoreInfo
from rapidin.settings import StoreSettings, stated
from rapidin.storage.catalog import Database, MetadataFieldRow, SampleRow, tables
from rapidin.storage.derived import KINDS, StoreFacts, derived_info, derived_records
from rapidin.storage.maintenance.garbage import unnamed_bytes
from rapidin.storage.vectors import codec_named


def store_info(
    path: Path, database: Database, settings: StoreSettings, created: str, format_version: int
) -> StoreInfo:
    """Make the record of the store in the directory `path` from its database and settings."""
    with database.reading() as session:
        records = tables.segment_records(session)
        live = tables.live_counts(session)
        rows = session.scalar(select(func.count(SampleRow.key))) or 0
        facts = StoreFacts(
            path,
            codec_named(settings.codec.name),
            settings.projection.dimension,
            {record.id or 0: record for record in records},
            settings.probe_shape,
        )
        derived = [derived_info(facts, record, live) for record in derived_records.read(session).values()]
        fields = session.scalars(select(MetadataFieldRow.name).order_by(MetadataFieldRow.name)).all()
    segments = tuple(
        SegmentInfo(record.name, record.rows, live.get(record.id or 0, 0), record.bytes, record.checksum)
        for record in records
    )
    samples = sum(live.values())
    return StoreInfo(
        path=str(path),
        samples=samples,
        deleted=rows - samples,
        traced_parameters=sum(math.prod(tensor.shape) for tensor in settings.traced),
        traced_tensors=len(settings.traced),
        bytes_vectors=sum(record.bytes for record in records),
        bytes_metadata=database.size(),
        bytes_unnamed=unnamed_bytes(path, database),
        format_version=format_version,
        created=created,
        indexes=(DerivedInfo("exact", samples, 0, 0), *(info for info in derived if _serves_searches(info.name))),
        derived=tuple(info for info in derived if not _serves_searches(info.name)),
        segments=segments,
        metadata_fields=tuple(fields),
        learning_rates=settings.model.learning_rates,
        **stated(settings),
    )


def _serves_searches(kind: str) -> bool:
    """Tell whether derived data of a kind is an index; a kind that this rapidin does not know is not."""
    return kind in KINDS and KINDS[kind].serves_searches

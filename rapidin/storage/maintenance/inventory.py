"""What a store holds, and how large it is, from the database and the sizes of files."""

from __future__ import annotations

import math
from pathlib import Path

from sqlalchemy import func, select

from rapidin.records import IndexInfo, SegmentInfo, StoreInfo
from rapidin.settings import StoreSettings
from rapidin.storage.catalog import Database, MetadataFieldRow, SampleRow, tables
from rapidin.storage.derived import derived_rows, index_info
from rapidin.storage.maintenance.garbage import unnamed_bytes
from rapidin.storage.vectors import codec_named


def store_info(
    path: Path, database: Database, settings: StoreSettings, created: str, format_version: int
) -> StoreInfo:
    """The record of the store in the directory `path`; the other arguments are what `Store` knows of it."""
    model, projection = settings.model, settings.projection
    with database.reading() as session:
        records = tables.segment_records(session)
        live = tables.live_counts(session)
        rows = session.scalar(select(func.count(SampleRow.key))) or 0
        indexes = [
            index_info(path, record, live, codec_named(settings.codec.name))
            for record in derived_rows.read(session).values()
        ]
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
        projection=projection.kind,
        projection_dim=projection.dimension,
        shuffles=projection.shuffles,
        seed=projection.seed,
        objective=projection.objective,
        normalise_layers=projection.normalise_layers,
        bits=settings.codec.bits,
        traced_parameters=sum(math.prod(tensor.shape) for tensor in settings.traced),
        traced_tensors=len(settings.traced),
        model=model.model,
        adapter=model.adapter,
        dtype=model.dtype,
        quantization=model.quantization,
        parameters=model.parameters,
        max_length=settings.text.max_length,
        targets=settings.text.targets,
        bytes_vectors=sum(record.bytes for record in records),
        bytes_metadata=database.size(),
        bytes_unnamed=unnamed_bytes(path, database),
        format_version=format_version,
        created=created,
        indexes=(IndexInfo("exact", samples, 0, 0), *indexes),
        segments=segments,
        metadata_fields=tuple(fields),
    )

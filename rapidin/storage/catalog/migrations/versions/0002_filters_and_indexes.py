"""Format 2: metadata values and narrow columns in indexes that filters use; tables for approximate indexes."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from rapidin.storage.filters import indexed_metadata

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SAMPLES_AT_ONCE = 1000


def upgrade() -> None:
    """Make the tables and fill them from the samples."""
    _number_metadata_fields()
    op.create_table(
        "sample_metadata",
        sa.Column("sample_key", sa.Integer(), nullable=False),
        sa.Column("field_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("number", sa.BLOB(), nullable=True),  # keeps integers and floats as they are
        sa.Column("text", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sample_key"], ["samples.key"], name=op.f("fk_sample_metadata_sample_key"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["field_id"], ["metadata_fields.id"], name=op.f("fk_sample_metadata_field_id")),
        sa.PrimaryKeyConstraint("sample_key", "field_id", name=op.f("pk_sample_metadata")),
        sqlite_with_rowid=False,
    )
    _fill_sample_metadata()
    # After the rows, because that is several times faster.
    op.create_index("ix_sample_metadata_value", "sample_metadata", ["field_id", "kind", "number", "text"])
    for name, columns in (
        (
            "ix_samples_live",
            ["key", "segment_id", "row", "tokens", "targets", "truncated", "file", "deleted_at"],
        ),
        ("ix_samples_live_search", ["sample_id", "segment_id", "position", "scale", "deleted_at"]),
    ):
        op.create_index(name, "samples", columns, sqlite_where=sa.text("deleted_at IS NULL"))
    _make_index_tables()


def _number_metadata_fields() -> None:
    """Give metadata fields an integer key; SQLite can only do that with a new table."""
    op.create_table(
        "numbered_metadata_fields",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metadata_fields")),
        sa.UniqueConstraint("name", name=op.f("uq_metadata_fields_name")),
    )
    op.execute("INSERT INTO numbered_metadata_fields (name) SELECT name FROM metadata_fields ORDER BY name")
    op.drop_table("metadata_fields")
    op.rename_table("numbered_metadata_fields", "metadata_fields")


def _fill_sample_metadata() -> None:
    """Write the values of all samples, some samples at a time."""
    connection = op.get_bind()
    fields = {name: id for id, name in connection.exec_driver_sql("SELECT id, name FROM metadata_fields")}
    for samples in _samples(connection):
        rows = []
        for key, metadata in samples:
            try:
                values = indexed_metadata(metadata)
            except (TypeError, ValueError):
                continue  # a damaged row, which its checksum tells: `verify` names it
            rows += [(key, fields[name], *value) for name, value in values.items() if name in fields]
        if rows:
            connection.exec_driver_sql(
                "INSERT INTO sample_metadata (sample_key, field_id, kind, number, text) VALUES (?, ?, ?, ?, ?)",
                rows,
            )


def _samples(connection: sa.Connection) -> Iterator[list[tuple[int, str]]]:
    """Keys and metadata of all samples, live or not."""
    last = -1  # rapidin numbers samples from 1
    while True:
        found = connection.exec_driver_sql(
            "SELECT key, metadata FROM samples WHERE key > ? ORDER BY key LIMIT ?",
            (last, _SAMPLES_AT_ONCE),
        ).all()
        if not found:
            return
        yield [(key, metadata) for key, metadata in found]
        last = found[-1][0]


def _make_index_tables() -> None:
    op.create_table(
        "indexes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("file_checksum", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_indexes")),
        sa.UniqueConstraint("kind", name=op.f("uq_indexes_kind")),
    )
    op.create_table(
        "index_parts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("file_checksum", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"], ["indexes.id"], name=op.f("fk_index_parts_index_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["segment_id"], ["segments.id"], name=op.f("fk_index_parts_segment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_parts")),
        sa.UniqueConstraint("index_id", "segment_id", name=op.f("uq_index_parts_index_id_segment_id")),
    )

"""Format 1: settings, segments, samples with their metadata, and derived data."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and their indexes."""
    op.create_table(
        "settings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("format_version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_settings_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settings")),
    )
    op.create_table(
        "segments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("codec", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
        sa.UniqueConstraint("name", name=op.f("uq_segments_name")),
    )
    _make_samples()
    _make_metadata()
    _make_derived()


def _make_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Text(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("scale", sa.Float(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("metadata_hash", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("targets", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("target_spans", sa.Text(), nullable=True),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_samples_segment_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_samples")),
        sa.UniqueConstraint("segment_id", "position", name=op.f("uq_samples_segment_id_position")),
    )
    live = sa.text("deleted_at IS NULL")
    op.create_index("ix_samples_live_id", "samples", ["sample_id"], unique=True, sqlite_where=live)
    for name, columns in (
        (
            "ix_samples_live",
            ["key", "segment_id", "row", "tokens", "targets", "truncated", "file", "deleted_at"],
        ),
        ("ix_samples_live_search", ["sample_id", "segment_id", "position", "scale", "deleted_at"]),
    ):
        op.create_index(name, "samples", columns, sqlite_where=live)


def _make_metadata() -> None:
    op.create_table(
        "metadata_fields",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metadata_fields")),
        sa.UniqueConstraint("name", name=op.f("uq_metadata_fields_name")),
    )
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
    op.create_index("ix_sample_metadata_value", "sample_metadata", ["field_id", "kind", "number", "text"])


def _make_derived() -> None:
    op.create_table(
        "derived",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("file_checksum", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_derived")),
        sa.UniqueConstraint("kind", name=op.f("uq_derived_kind")),
    )
    op.create_table(
        "derived_parts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("derived_id", sa.Integer(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("file_checksum", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["derived_id"], ["derived.id"], name=op.f("fk_derived_parts_derived_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["segment_id"], ["segments.id"], name=op.f("fk_derived_parts_segment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_derived_parts")),
        sa.UniqueConstraint("derived_id", "segment_id", name=op.f("uq_derived_parts_derived_id_segment_id")),
    )

"""The tables of ``store.db``; no row of them leaves `rapidin.storage`.

A change here needs a new file in ``migrations/versions`` and a higher `FORMAT_VERSION`. A test compares the tables
that the migrations make with those that are defined here. Migration number n makes format version n.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

FORMAT_VERSION = 2
"""Format of the stores that this rapidin writes. Older stores are migrated, newer ones are refused."""

LIVE_INDEX = "ix_samples_live"
"""Index of the columns that filters compare, for live samples in the order in which they were stored."""
SEARCH_INDEX = "ix_samples_live_search"
"""Index of the columns that a search needs, for live samples in the order of their ids."""

VALUE_INDEX = "ix_sample_metadata_value"
"""Index of the metadata values that filters compare."""


class Number(UserDefinedType[int | float]):
    """A column that keeps integers and floats as they were given; other declared types would convert them."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type in the table's definition, the only one whose affinity converts nothing."""
        return "BLOB"


class Base(DeclarativeBase):
    """Base of the tables. It gives constraints names, so that migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class SettingsRow(Base):
    """The one row that holds the settings that the store was created with.

    Every later format keeps this table's name and its `format_version`: an older rapidin reads them to say
    that it is too old.
    """

    __tablename__ = "settings"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    format_version: Mapped[int]
    created: Mapped[str] = mapped_column(Text)
    settings: Mapped[str] = mapped_column(Text)
    checksum: Mapped[str] = mapped_column(Text)


class SegmentRow(Base):
    """One immutable file of vectors, with the size and XXH3-128 checksum of the file on disk."""

    __tablename__ = "segments"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    rows: Mapped[int]
    bytes: Mapped[int]
    checksum: Mapped[str] = mapped_column(Text)
    codec: Mapped[str] = mapped_column(Text)


class SampleRow(Base):
    """One training sample and the place of its vector; a replaced or deleted sample is only marked.

    `checksum` covers all columns except `deleted_at`, so that an altered row is noticed although SQLite keeps no
    checksums. `target_spans` is null unless the sample is a chat.
    """

    __tablename__ = "samples"

    key: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[str] = mapped_column(Text)
    segment_id: Mapped[int] = mapped_column(ForeignKey("segments.id"))
    position: Mapped[int]
    scale: Mapped[float] = mapped_column(Float)
    prompt: Mapped[str] = mapped_column(Text)
    response: Mapped[str] = mapped_column(Text)
    metadata_json: Mapped[str] = mapped_column("metadata", Text)
    metadata_hash: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(Text)
    file: Mapped[str] = mapped_column(Text)
    row: Mapped[int]
    tokens: Mapped[int]
    targets: Mapped[int]
    truncated: Mapped[bool]
    target_spans: Mapped[str | None] = mapped_column(Text)
    checksum: Mapped[str] = mapped_column(Text)
    deleted_at: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("segment_id", "position"),
        Index("ix_samples_live_id", "sample_id", unique=True, sqlite_where=deleted_at.is_(None)),
        # `deleted_at`, always null here, is in both so that SQLite need not look at the wide rows for it.
        Index(
            LIVE_INDEX,
            *("key", "segment_id", "row", "tokens", "targets", "truncated", "file", "deleted_at"),
            sqlite_where=deleted_at.is_(None),
        ),
        Index(
            SEARCH_INDEX,
            *("sample_id", "segment_id", "position", "scale", "deleted_at"),
            sqlite_where=deleted_at.is_(None),
        ),
    )


class MetadataFieldRow(Base):
    """A metadata key that some sample has or had, and that a filter may therefore name."""

    __tablename__ = "metadata_fields"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)


class SampleMetadataRow(Base):
    """One metadata value that is not null, as filters compare it (see `indexed_values`).

    Deleted samples have such rows, too. A sample's own JSON is the truth; `Store.verify` compares them with it.
    """

    __tablename__ = "sample_metadata"

    sample_key: Mapped[int] = mapped_column(ForeignKey("samples.key", ondelete="CASCADE"), primary_key=True)
    field_id: Mapped[int] = mapped_column(ForeignKey("metadata_fields.id"), primary_key=True)
    kind: Mapped[int]
    number: Mapped[int | float | None] = mapped_column(Number)
    text: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(VALUE_INDEX, "field_id", "kind", "number", "text"),
        {"sqlite_with_rowid": False},
    )


class DigestRow(Base):
    """The sum of the hashes of a part of what searches and filters read, see `digests`."""

    __tablename__ = "digests"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[int]


class DerivedRow(Base):
    """Data derived from the store, such as an index for approximate search; a store has at most one of each kind.

    `file` is the file that its parts share, or null if they share none. `checksum` covers the row.
    """

    __tablename__ = "derived"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text, unique=True)
    parameters: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(Text)
    file: Mapped[str | None] = mapped_column(Text)
    bytes: Mapped[int]
    file_checksum: Mapped[str] = mapped_column(Text)
    checksum: Mapped[str] = mapped_column(Text)


class DerivedPartRow(Base):
    """The part of derived data that covers one segment; `file` is null if the shared file holds it."""

    __tablename__ = "derived_parts"
    __table_args__ = (UniqueConstraint("derived_id", "segment_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    derived_id: Mapped[int] = mapped_column(ForeignKey("derived.id", ondelete="CASCADE"))
    segment_id: Mapped[int] = mapped_column(ForeignKey("segments.id", ondelete="CASCADE"))
    file: Mapped[str | None] = mapped_column(Text)
    bytes: Mapped[int]
    file_checksum: Mapped[str] = mapped_column(Text)
    rows: Mapped[int]

"""The tables of ``store.db``; nothing outside `rapidin.storage` ever sees one of these rows.

A change here needs a new file in ``migrations/versions`` and a higher `FORMAT_VERSION`; a test compares what
the migrations make with what stands here. Format version n is what migration number n leaves behind.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

FORMAT_VERSION = 1
"""Format of the stores that this rapidin writes; an older one is migrated, a newer one refused."""

LIVE_INDEX = "ix_samples_live"
"""Index of what filters ask of live samples, in the order in which these were stored."""
SEARCH_INDEX = "ix_samples_live_search"
"""Index of what a search needs of live samples, in the order of their ids."""


class Number(UserDefinedType[int | float]):
    """A column that keeps integers and floats apart, as given; any other declared type would turn one kind."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type in the table's definition: the one whose affinity converts nothing."""
        return "BLOB"


class Base(DeclarativeBase):
    """Base of the tables; constraints get names, so that migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class SettingsRow(Base):
    """The one row that says what the store was created with.

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
    """One immutable file of vectors: size and XXH3-128 checksum are those of the file on disk."""

    __tablename__ = "segments"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    rows: Mapped[int]
    bytes: Mapped[int]
    checksum: Mapped[str] = mapped_column(Text)
    codec: Mapped[str] = mapped_column(Text)


class SampleRow(Base):
    """One training sample and the place of its vector; a replaced or deleted one stays, marked.

    `checksum` covers all that the row says except `deleted_at`, so that an altered row is noticed although
    SQLite itself keeps no checksums. `target_spans` is null unless the sample is a chat.
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
    """A metadata key that some sample has or had: what a filter may ask for."""

    __tablename__ = "metadata_fields"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)


class SampleMetadataRow(Base):
    """One metadata value that is not null, of a sample live or not, as filters compare it; see `indexed_values`.

    The truth is the sample's own JSON: `Store.verify` compares.
    """

    __tablename__ = "sample_metadata"

    sample_key: Mapped[int] = mapped_column(ForeignKey("samples.key", ondelete="CASCADE"), primary_key=True)
    field_id: Mapped[int] = mapped_column(ForeignKey("metadata_fields.id"), primary_key=True)
    kind: Mapped[int]
    number: Mapped[int | float | None] = mapped_column(Number)
    text: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("ix_sample_metadata_value", "field_id", "kind", "number", "text"),
        {"sqlite_with_rowid": False},
    )


class DerivedRow(Base):
    """Data derived from the store, such as an index for approximate search; a store has one of a kind at most.

    `file` is what its parts share, null where there is no such file. `checksum` covers the row.
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
    """The part of derived data that covers one segment; `file` is null where the shared file holds it."""

    __tablename__ = "derived_parts"
    __table_args__ = (UniqueConstraint("derived_id", "segment_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    derived_id: Mapped[int] = mapped_column(ForeignKey("derived.id", ondelete="CASCADE"))
    segment_id: Mapped[int] = mapped_column(ForeignKey("segments.id", ondelete="CASCADE"))
    file: Mapped[str | None] = mapped_column(Text)
    bytes: Mapped[int]
    file_checksum: Mapped[str] = mapped_column(Text)
    rows: Mapped[int]

"""Creating a store and opening one: files, settings, format, migration.

A new database is built under a temporary name and renamed, so that a store exists completely or not at all. The
next creation treats the remains of a killed one as an empty directory.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import select

from rapidin.errors import (
    SettingError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreNotFoundError,
)
from rapidin.settings import StoreSettings
from rapidin.storage.catalog import (
    COMMITS_TEMPORARY_NAME,
    Database,
    database as databases,
    schema,
    text_checksum,
)
from rapidin.storage.concurrency import HOLDER_NAME, LOCK_NAME, READERS_NAME, is_readers_file, writer_lock
from rapidin.storage.store_files import (
    COMMITS_NAME,
    DATABASE_NAME,
    SEGMENTS_NAME,
    file_errors,
    refuse_inside_store,
    refuse_links,
)
from rapidin.support import sync

_TEMPORARY_NAME = f".{DATABASE_NAME}.tmp"
_LEFTOVERS = {
    LOCK_NAME,
    HOLDER_NAME,
    COMMITS_NAME,
    COMMITS_TEMPORARY_NAME,
    *(f"{_TEMPORARY_NAME}{end}" for end in ("", "-wal", "-shm", "-journal")),
}


_PAUSE = 0.05
"""Seconds between two looks at a store that another process is migrating."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database and its settings."""

    database: Database
    settings: StoreSettings
    created: str
    format_version: int


def create_store(path: Path, settings: StoreSettings) -> None:
    """Create an empty store in the directory `path`, and the directory if it is missing.

    Raises:
        StoreError: the directory holds something else, or cannot be written to.
        StoreLockedError: another process is creating it.
    """
    check_place(path)
    with file_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with writer_lock(path), file_errors(path):
        _refuse_occupied(path)  # again, because another process may have created it meanwhile
        for name in _LEFTOVERS - {LOCK_NAME, HOLDER_NAME}:
            (path / name).unlink(missing_ok=True)
        (path / SEGMENTS_NAME).mkdir(exist_ok=True)
        (path / READERS_NAME).touch()  # made now for readers that may not write to the directory
        temporary = path / _TEMPORARY_NAME
        database = Database(temporary, create=True)
        try:
            databases.migrate(database, schema.FORMAT_VERSION)
            _write_settings(database, settings)
            database.use_write_ahead_log()
            with database.reading() as session:
                database.commits.acknowledge(databases.commit_number(session))
        finally:
            database.close()
        temporary.rename(path / DATABASE_NAME)
        sync(path)


def check_place(path: Path) -> None:
    """Check, without changing anything, that a store can be created in the directory `path`.

    Raises:
        StoreError: the directory holds something else, or cannot be written to.
    """
    with file_errors(path):
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path}: it is a file; give the name of a new or empty directory")
        _refuse_occupied(path)
        existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise StoreError(f"{path}: {existing} is a file; give the name of a new or empty directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        refuse_inside_store(path)


def open_store(path: Path) -> Opened:
    """Open the store in the directory `path`; a store of an older format is migrated.

    Raises:
        StoreNotFoundError: there is no store.
        StoreFormatError: `path` is a file or not a store, or a newer rapidin wrote the store.
        StoreCorruptError: the database is damaged.
        StoreLockedError: another process is writing to a store of an older format, and does not finish.
        StoreError: one of its files is a symbolic link.
    """
    with file_errors(path):
        if path.exists() and not path.is_dir():
            raise StoreFormatError(f"{path}: it is a file, not a store; give the directory of a store")
        if os.path.lexists(path / DATABASE_NAME):
            refuse_links(path)
        if not (path / DATABASE_NAME).is_file():
            raise StoreNotFoundError(f"{path}: there is no store; make one with 'rapidin ingest {path} …'")
    database = Database(path / DATABASE_NAME)
    try:
        version = databases.read_format_version(database)
        if version < schema.FORMAT_VERSION:
            version = _migrated(path, database)
        if version > schema.FORMAT_VERSION:
            raise StoreFormatError(
                f"{path}: the store has format {version}, this rapidin knows formats up to "
                f"{schema.FORMAT_VERSION}; upgrade rapidin"
            )
        settings, created = _read_settings(database)
    except StoreError:
        database.close()
        raise
    return Opened(database, settings, created, version)


def _migrated(path: Path, database: Database) -> int:
    """Migrate to the newest format, or wait until another process has done so; return the format's number."""
    deadline = time.monotonic() + databases.BUSY_SECONDS
    while (version := databases.read_format_version(database)) < schema.FORMAT_VERSION:
        try:
            with writer_lock(path):
                # Again, because it may have been migrated between the look and the lock.
                if databases.read_format_version(database) < schema.FORMAT_VERSION:
                    databases.migrate(database, schema.FORMAT_VERSION)
        except StoreLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
    return version


def _refuse_occupied(path: Path) -> None:
    if not path.exists():
        return
    if (path / DATABASE_NAME).exists():
        raise StoreError(f"{path}: there is a store already; open it, or give another directory")
    for found in sorted(path.iterdir()):
        empty_segments = found.name == SEGMENTS_NAME and found.is_dir() and not any(found.iterdir())
        leftover = found.name in _LEFTOVERS or is_readers_file(found.name)
        if not leftover and not empty_segments:
            raise StoreError(f"{path}: the directory holds {found.name!r}; give a new or empty one")


def _write_settings(database: Database, settings: StoreSettings) -> None:
    text = settings.model_dump_json()
    with database.writing() as session:
        session.add(
            schema.SettingsRow(
                id=1,
                format_version=schema.FORMAT_VERSION,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                settings=text,
                checksum=text_checksum(text),
            )
        )


def _read_settings(database: Database) -> tuple[StoreSettings, str]:
    """Return the settings, and the time at which the store was created."""
    with database.reading() as session:
        row = session.scalars(select(schema.SettingsRow)).one_or_none()
        right = row is not None and isinstance(row.settings, str) and isinstance(row.created, str)
        if row is None or not right or text_checksum(row.settings) != row.checksum:
            raise StoreCorruptError(
                f"{database.path}: its settings were altered; restore the file from a backup or ingest again"
            )
        try:
            return StoreSettings.model_validate_json(row.settings), str(row.created)
        except (ValidationError, SettingError) as error:
            raise StoreFormatError(
                f"{database.path}: this rapidin does not understand its settings; upgrade rapidin"
            ) from error

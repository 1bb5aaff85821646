"""Files that the database does not name: remains of interrupted commits, compactions and dropped derived data."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from rapidin.storage.catalog import Database, tables
from rapidin.storage.concurrency import removable
from rapidin.storage.derived import KINDS, derived_records, folders
from rapidin.storage.store_files import SEGMENTS_NAME, file_errors
from rapidin.storage.vectors import SUFFIX


def remove_garbage(store: Path, database: Database) -> None:
    """Delete the files that the database does not name and no reader needs. Only the writer calls this.

    Files that readers may need are left to a later writer. Unfinished files are always deleted.

    Raises:
        StoreError: the directory cannot be read or written to.
    """
    with file_errors(store / SEGMENTS_NAME):
        (store / SEGMENTS_NAME).mkdir(exist_ok=True)
    unnamed = unnamed_files(store, database)
    unfinished = {name for name in unnamed if _is_unfinished(Path(name))}
    finished = {name: file.stat().st_mtime_ns for name, file in unnamed.items() if name not in unfinished}
    for name in sorted(unfinished | removable(store, finished)):
        with file_errors(unnamed[name]):
            unnamed[name].unlink()


def unnamed_bytes(store: Path, database: Database) -> int:
    """Return the size of all files that the database does not name, including unfinished ones.

    Raises:
        StoreError: the directory cannot be read.
    """
    size = 0
    for path in unnamed_files(store, database).values():
        with file_errors(path), suppress(FileNotFoundError):  # a writer has just removed the file
            size += path.stat().st_size
    return size


def unnamed_files(store: Path, database: Database) -> dict[str, Path]:
    """Return the paths of the files that the database does not name, by folder and file name.

    Raises:
        StoreError: the directory cannot be read.
    """
    # Files are listed before the database is read, so that files committed meanwhile do not count.
    known = {SEGMENTS_NAME: frozenset({SUFFIX}), **folders()}
    files = {
        f"{folder}/{path.name}": path
        for folder, suffixes in known.items()
        for path in _files(store / folder, suffixes)
    }
    with database.reading() as session:
        named = {f"{SEGMENTS_NAME}/{record.name}" for record in tables.segment_records(session)}
        for record in derived_records.read(session).values():
            kind = KINDS.get(record.kind)
            # A folder may also hold files of a kind that only a newer rapidin knows.
            for folder in folders() if kind is None else (kind.folder,):
                named |= {f"{folder}/{file.name}" for file in record.files}
    return {name: path for name, path in files.items() if name not in named}


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files with the given suffixes in a folder of the store, including unfinished ones."""
    with file_errors(folder):
        if not folder.is_dir():
            return []
        named = (path for path in folder.iterdir() if path.suffix in suffixes or _is_unfinished(path))
        return [path for path in named if not path.is_dir()]


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"

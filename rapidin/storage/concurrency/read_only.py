"""Connections to ``store.db`` that know whether the file changed behind their back.

Where SQLite cannot make its helper files, with which readers and writers share the file, it has to be told that
the file does not change (``immutable``), and reads it without any lock. That is done

* if this process may not write to the directory, because the disk is read-only or the store belongs to another
  user. The owner may write all the same, so every transaction compares the file with what it was at opening;
* on a full disk, as long as this process keeps writers away with a share of their lock.

``immutable`` also ignores the write-ahead log, so it is not used if the log holds anything.

Any connection may outlive its file, if somebody replaces the store. So the file's identity is compared, too.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from rapidin.storage.concurrency.locks import NoWriter

_NO_ROOM = {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN}
_logger = logging.getLogger(__name__)


def opened_unchanging(path: Path, error: sqlite3.OperationalError) -> StoreConnection | None:
    """Open a read-only connection to the database at `path`; return None if it might change or is incomplete.

    Args:
        path: path of the file.
        error: error of SQLite when the file was opened as usual.
    """
    if os.access(path, os.R_OK) and not os.access(path.parent, os.W_OK):
        return _opened(path)
    if getattr(error, "sqlite_errorcode", 0) not in _NO_ROOM:
        return None
    known = NoWriter.is_kept_here(path.parent)
    try:
        no_writer = NoWriter(path.parent)
    except OSError:
        return None
    connection = _opened(path)  # only from now on can the log not change
    if connection is None:
        no_writer.close()
        return None
    if not known:
        _logger.info("%s: the disk is full; nobody can write to the store while this process reads it", path)
    connection.no_writer = no_writer
    return connection


class StoreConnection(sqlite3.Connection):
    """A connection that tells whether the file that it reads is still the one at its path.

    Attributes:
        unchanging: whether SQLite was told that the file does not change.
        no_writer: share of the writer's lock that keeps writers away as long as the connection is open, if any.
    """

    unchanging = False
    no_writer: NoWriter | None = None
    _path: Path
    _seen: tuple[Any, ...]

    def remember(self, path: Path, seen: tuple[Any, ...]) -> None:
        """Keep what `state_of` said of the file before the connection was opened."""
        self._path, self._seen = path, seen

    def is_stale(self) -> bool:
        """Tell whether the file was replaced or, if it was to stay the same, has changed."""
        return state_of(self._path, self.unchanging) != self._seen

    def close(self) -> None:
        """Close the connection and admit writers again."""
        super().close()
        if self.no_writer is not None:
            self.no_writer.close()


def state_of(path: Path, whole: bool) -> tuple[Any, ...]:
    """Return what tells one state of the file at `path` from others; an empty tuple if the file is gone.

    Args:
        path: path of the file.
        whole: whether a change of the contents counts. Otherwise only another file in its place does.
    """
    with suppress(OSError):
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        if not whole:
            return identity
        with path.open("rb", buffering=0) as file:
            header = file.read(100)  # holds the number of the last commit, if times are too coarse to tell
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return (*identity, *times, header, _has_empty_log(path))
    return ()


def _opened(path: Path) -> StoreConnection | None:
    seen = state_of(path, whole=True)
    if not _has_empty_log(path):
        return None
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, factory=StoreConnection
    )
    connection.unchanging = True
    connection.remember(path, seen)
    return connection


def _has_empty_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return not log.exists() or log.stat().st_size == 0

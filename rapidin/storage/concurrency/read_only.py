"""Reading ``store.db`` where SQLite cannot make its helper files, with which readers and writers share it.

SQLite then has to be told that the file does not change (``immutable``), and reads it without any lock. The file
does not change

* if this process may not write to the directory, because the disk is read-only or the store belongs to another
user; * on a full disk, as long as this process keeps writers away with a share of their lock.

``immutable`` also ignores the write-ahead log, so it is not used if the log holds anything.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from rapidin.storage.concurrency.locks import NoWriter

_NO_ROOM = {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN}
_logger = logging.getLogger(__name__)


def opened_unchanging(path: Path, error: sqlite3.OperationalError) -> sqlite3.Connection | None:
    """Open a read-only connection to the database at `path`; return None if it might change or is incomplete.

    Args:
        path: path of the file.
        error: error of SQLite when the file was opened as usual.
    """
    if os.access(path, os.R_OK) and not os.access(path.parent, os.W_OK):
        return _opened(path) if _has_empty_log(path) else None
    if getattr(error, "sqlite_errorcode", 0) not in _NO_ROOM:
        return None
    known = NoWriter.is_kept_here(path.parent)
    try:
        no_writer = NoWriter(path.parent)
    except OSError:
        return None
    if not _has_empty_log(path):  # only from now on can the log not change
        no_writer.close()
        return None
    if not known:
        _logger.info("%s: the disk is full; nobody can write to the store while this process reads it", path)
    connection = _opened(path)
    connection.no_writer = no_writer
    return connection


class _Connection(sqlite3.Connection):
    """A connection that may keep writers away as long as it is open."""

    no_writer: NoWriter | None = None

    def close(self) -> None:
        """Close the connection and admit writers again."""
        super().close()
        if self.no_writer is not None:
            self.no_writer.close()


def _opened(path: Path) -> _Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=_Connection)


def _has_empty_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return not log.exists() or log.stat().st_size == 0

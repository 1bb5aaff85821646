"""Readers keep the files that their state of the store names, although a compaction has replaced them.

Whoever reads vectors shares a kernel lock, taken before the state of the database is; files that the database no
longer names are removed only by a writer who gets that lock alone, without waiting. The kernel releases the lock
with the process, so a killed reader keeps nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

READERS_NAME = "readers.lock"


class ReadersLock:
    """One reader's share of the lock, from its making until `close`.

    Without effect where the file can be neither made nor opened, as in a directory that nobody may write to, and
    where the system has no such locks (Windows itself keeps files that are open).
    """

    def __init__(self, store: Path) -> None:
        """Share the lock of the store in the directory `store`; waits while a writer removes files."""
        self._file = _opened(store)
        if self._file is not None and sys.platform != "win32":
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Give the share back."""
        if self._file is not None:
            self._file.close()


@contextmanager
def no_readers(store: Path) -> Iterator[bool]:
    """Keep new readers waiting until the end of the ``with``; false, and nobody waits, where there are some."""
    file = _opened(store)
    if file is None:
        yield False
        return
    with file:
        yield _alone(file)


def _alone(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody reads, or the file system has no locks and nobody knows
        return False
    return True


def _opened(store: Path) -> IO[bytes] | None:
    """The lock's file, made if need be; where it is another user's, reading it is enough."""
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with suppress(OSError):
            return os.fdopen(os.open(store / READERS_NAME, flags, 0o666), "rb")
    return None

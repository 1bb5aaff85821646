"""One writer at a time: an advisory lock that the operating system releases when its holder dies.

Readers need no lock, except those that open the database without SQLite's own locks: they keep writers away
(`NoWriter`).
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from rapidin.errors import StoreLockedError, StoreSpaceError
from rapidin.storage.store_files import file_errors, refuse_links, refuse_other_names
from rapidin.support import one_line, open_regular, write_content

LOCK_NAME = "writer.lock"
HOLDER_NAME = "writer.json"
_LONGEST_HOLDER = 200
"""Maximum number of characters of a description of the writer."""


@contextmanager
def writer_lock(store: Path) -> Iterator[None]:
    """Hold the writer's lock of the store in the directory `store`. This never waits.

    Raises:
        StoreLockedError: another process holds the lock; the message names it.
        StoreSpaceError: this process reads the store without SQLite's locks, because the disk is full.
        StoreError: the directory cannot be written to, or a file in it is linked with one elsewhere.
    """
    refuse_links(store)
    refuse_other_names(store)
    # The lock belongs to no thread, so that a generator that ends in another thread still releases it.
    lock = FileLock(store / LOCK_NAME, thread_local=False)
    with file_errors(store):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:  # it is an OSError, too, so it is caught first
            if NoWriter.is_kept_here(store):
                raise StoreSpaceError(
                    f"{store}: no space left to write; make room and run the same command again"
                ) from error
            raise StoreLockedError(
                f"{store}: {_holder(store)} is writing to this store; wait until it has finished, or stop it"
            ) from error
    try:
        with file_errors(store):
            started = datetime.now(UTC).isoformat(timespec="seconds")
            write_content(store / HOLDER_NAME, json.dumps({"pid": os.getpid(), "started": started}))
        yield
    finally:
        # This comes before the release, because the file may belong to the next holder afterwards.
        with suppress(OSError):
            (store / HOLDER_NAME).unlink(missing_ok=True)
        lock.release()


class NoWriter:
    """A share of the writer's lock; no process can write to the store until `close`."""

    _kept: ClassVar[Counter[Path]] = Counter()
    _kept_lock = threading.Lock()

    def __init__(self, store: Path) -> None:
        """Keep writers away from the store in the directory `store`.

        Raises:
            OSError: a process is writing, the file does not exist, or the system has no such locks.
        """
        self._store = store.resolve()
        self._file = (store / LOCK_NAME).open("rb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise
        with self._kept_lock:
            self._kept[self._store] += 1

    @classmethod
    def is_kept_here(cls, store: Path) -> bool:
        """Tell whether this process itself keeps writers away from the store in the directory `store`."""
        with cls._kept_lock:
            return cls._kept[store.resolve()] > 0

    def close(self) -> None:
        """Admit writers again, unless other readers keep them away."""
        if not self._file.closed:
            self._file.close()
            with self._kept_lock:
                self._kept[self._store] -= 1


def _holder(store: Path) -> str:
    """Describe the process that holds the lock."""
    try:
        with os.fdopen(open_regular(store / HOLDER_NAME, os.O_RDONLY), "rb") as file:
            holder = json.loads(file.read(_LONGEST_HOLDER))
        return one_line(f"process {holder['pid']} (since {holder['started']})", _LONGEST_HOLDER)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"  # it holds the lock, but has not written its number down yet

"""One writer at a time: an advisory lock that the operating system releases when its holder dies.

Readers need no lock, but one that opens the database without SQLite's own locks keeps writers away
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
from rapidin.storage.store_files import file_errors

LOCK_NAME = "writer.lock"
HOLDER_NAME = "writer.json"


@contextmanager
def writer_lock(store: Path) -> Iterator[None]:
    """Hold the writer's lock of the store in the directory `store`; never waits.

    Raises:
        StoreLockedError: someone else holds it; the message names the process.
        StoreSpaceError: this process reads the store without SQLite's locks, since the disk is full.
        StoreError: the directory cannot be written to.
    """
    # The lock belongs to no thread, so that a generator that ends in another thread still releases it.
    lock = FileLock(store / LOCK_NAME, thread_local=False)
    with file_errors(store):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:  # an OSError, so it has to be told apart first
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
            (store / HOLDER_NAME).write_text(json.dumps({"pid": os.getpid(), "started": started}))
        yield
    finally:
        # Before the release: afterwards the file may already be the next holder's.
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
            OSError: somebody is writing, the file is not there, or the system has no such locks.
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
        """Return whether this process itself keeps writers away from the store in the directory `store`."""
        with cls._kept_lock:
            return cls._kept[store.resolve()] > 0

    def close(self) -> None:
        """Let writers come, unless others keep them away."""
        if not self._file.closed:
            self._file.close()
            with self._kept_lock:
                self._kept[self._store] -= 1


def _holder(store: Path) -> str:
    """Describe the process that holds the lock."""
    try:
        holder = json.loads((store / HOLDER_NAME).read_text())
        return f"process {holder['pid']} (since {holder['started']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock, but has not yet written down who it is

"""One writer at a time: an advisory lock that the operating system releases when its holder dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rapidin.errors import StoreLockedError
from rapidin.storage.files import file_errors

LOCK_NAME = "writer.lock"
HOLDER_NAME = "writer.json"


@contextmanager
def writer_lock(store: Path) -> Iterator[None]:
    """Hold the writer's lock of the store in the directory `store`; never waits.

    Raises:
        StoreLockedError: someone else holds it; the message names the process.
        StoreError: the directory cannot be written to.
    """
    # Not of the thread, so that a generator that ends in another thread still releases it.
    lock = FileLock(store / LOCK_NAME, thread_local=False)
    with file_errors(store):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:  # an OSError, so it has to be told apart first
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


def _holder(store: Path) -> str:
    """Words for the process that holds the lock."""
    try:
        holder = json.loads((store / HOLDER_NAME).read_text())
        return f"process {holder['pid']} (since {holder['started']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock, but has not yet written down who it is

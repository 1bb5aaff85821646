"""Generations of readers: files that a reader may need are kept, although a compaction has replaced them.

A reader of vectors joins the newest generation, which means that it shares the kernel lock of that generation's
file. It joins before it reads the state of the database. If a writer cannot remove a file because of readers, it
makes a new generation and records in it the files that no row names any more. Readers of that generation or a
later one cannot need these files. So the files are removed as soon as the earlier generations have no reader, even
if later ones have many. The kernel releases the locks of a dead process, so a killed reader keeps no files.

Generation 0 is ``readers.lock``, which every store has; the others are ``readers.<number>.lock``.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rapidin.support import open_regular, write_whole

READERS_NAME = "readers.lock"
_TEMPORARY_NAME = ".readers.tmp"
_NUMBERED = re.compile(r"readers\.([1-9][0-9]{0,17})\.lock")
_LAST = 10**18 - 1
"""Last number of a generation. If a stranger's store holds it, nothing is recorded until all readers leave."""
_MOST_BYTES = 2**24
"""Maximum number of bytes of a record; a longer one was not written by this module."""
_MOST_TRIES = 100
"""Maximum number of tries to join a generation before it is removed; only odd file systems need so many."""
_logger = logging.getLogger(__name__)


class ReadersLock:
    """One reader's share of a generation's lock, from its creation until `close`.

    It has no effect if the file can be neither made nor opened, as in a directory that nobody may write to, or if
    the file system has no locks.
    """

    def __init__(self, store: Path) -> None:
        """Join the newest generation of the store in the directory `store`."""
        self._file = _joined(store)

    def close(self) -> None:
        """Release the share."""
        if self._file is not None:
            self._file.close()


def is_readers_file(name: str) -> bool:
    """Tell whether a file with this name in a store's directory belongs to this module."""
    return name in (READERS_NAME, _TEMPORARY_NAME) or _NUMBERED.fullmatch(name) is not None


def removable(store: Path, unnamed: Mapping[str, int]) -> set[str]:
    """Choose the files that no reader needs, now or later. Only the writer calls this, and then deletes them.

    The other files are recorded in a new generation, unless the newest has recorded them all. Generations without
    readers are removed.

    Args:
        store: directory of the store.
        unnamed: files that the present state of the database does not name, each with the time of its last change
            in nanoseconds: a name can be used again, by an index whose building was interrupted.
    """
    if not unnamed:
        return set(unnamed)
    gone: set[str] = set()
    try:
        numbers = _generations(store)
        busy = next((number for number in numbers if not _free(store, number)), None)
        if busy is None:
            gone |= unnamed.keys()
        else:
            records = [_record(store, number) for number in numbers if number <= busy]
            gone |= {name for name, time in unnamed.items() if any(record.get(name) == time for record in records)}
            kept = {name: time for name, time in unnamed.items() if name not in gone}
            if not kept.items() <= _record(store, numbers[-1]).items() and numbers[-1] < _LAST:
                _make(store, numbers[-1] + 1, kept)
        # Files that one of them recorded are removed now, or are recorded by the newest, too.
        none_follows = busy is None and numbers[-1] >= _LAST
        for number in numbers if none_follows else numbers[:-1]:
            if number > 0:  # generation 0 stays, because a reader that may not write may need it
                _end(store, number)
    except OSError as error:  # without locks, without permission or on a full disk: the next writer tries again
        _logger.info("%s: files that readers may need are kept: %s", store, error)
    return gone


def _joined(store: Path) -> IO[bytes] | None:
    """Open the file of the newest generation and share its lock; None if that is impossible."""
    file = None
    for _ in range(_MOST_TRIES):
        newest = 0
        with suppress(OSError):  # the directory cannot be listed; a reader in generation 0 keeps the most files
            newest = max(_generations(store), default=0)
        path = _path(store, newest)
        file = _opened(path)
        if file is None:
            if path.name == READERS_NAME or path.exists():
                return None
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        # A writer may have ended the generation before the lock was shared, and would not see this reader.
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        file.close()
        file = None
    return file


def _generations(store: Path) -> list[int]:
    """Return the numbers of the existing generations, the oldest first."""
    names = [entry.name for entry in store.iterdir()]
    found = [int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))]
    return sorted([*found, 0] if READERS_NAME in names else found)


def _path(store: Path, number: int) -> Path:
    return store / (f"readers.{number}.lock" if number else READERS_NAME)


def _opened(path: Path) -> IO[bytes] | None:
    """Open a generation's file. Generation 0 is made if missing; another user's file is opened for reading."""
    make = os.O_CREAT if path.name == READERS_NAME else 0
    for flags in (os.O_RDWR | make, os.O_RDONLY):
        with suppress(OSError):
            return os.fdopen(open_regular(path, flags), "rb")
    return None


@contextmanager
def _alone(store: Path, number: int) -> Iterator[bool]:
    """Try to hold a generation's lock alone, without waiting; the context is false if a reader shares it.

    Raises:
        OSError: the file cannot be opened or locked.
    """
    path = _path(store, number)
    file = _opened(path)
    if file is None:
        raise PermissionError(f"{path} cannot be opened")
    with file:
        free = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        yield free


def _free(store: Path, number: int) -> bool:
    with _alone(store, number) as free:
        return free


def _end(store: Path, number: int) -> None:
    """Remove a generation's file if it has no reader."""
    with _alone(store, number) as free:
        if free:
            _path(store, number).unlink()


def _make(store: Path, number: int, unnamed: Mapping[str, int]) -> None:
    """Begin a generation. Its file appears together with its record or not at all.

    Nothing is synced, because an empty record after a power failure only means that the files are recorded again.
    """
    write_whole(
        _path(store, number), json.dumps(unnamed), durable=False, temporary_name=_TEMPORARY_NAME, follow=False
    )


def _record(store: Path, number: int) -> dict[str, object]:
    """Return what a generation's file records, or nothing if the file cannot be read."""
    if number == 0:
        return {}
    try:
        with os.fdopen(open_regular(_path(store, number), os.O_RDONLY), "rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
    except (ValueError, RecursionError, FileNotFoundError):
        return {}
    return content if isinstance(content, dict) else {}

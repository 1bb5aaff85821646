"""Readers keep the files that their state of the store names, although a compaction has replaced them.

Readers come in generations. Who reads vectors shares the kernel lock of the newest generation's file, taken before
the state of the database is. A writer that cannot remove a file because somebody reads makes a new generation and
records in it what no row names by then: whoever joins that generation, or a later one, cannot need these files. So
they go as soon as nobody is left in the generations before it, however many read in it. The kernel releases a lock
with its process, so a killed reader keeps nothing.

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

from rapidin.support import write_whole

READERS_NAME = "readers.lock"
_TEMPORARY_NAME = ".readers.tmp"
_NUMBERED = re.compile(r"readers\.([1-9][0-9]{0,17})\.lock")
_MOST_TRIES = 100
"""To join a generation that is not removed meanwhile; more are needed only where inodes mean nothing."""
_logger = logging.getLogger(__name__)


class ReadersLock:
    """One reader's share of a generation's lock, from its making until `close`.

    Without effect where the file can be neither made nor opened, as in a directory that nobody may write to, and
    where the file system has no locks.
    """

    def __init__(self, store: Path) -> None:
        """Join the newest generation of the store in the directory `store`."""
        self._file = _joined(store)

    def close(self) -> None:
        """Give the share back."""
        if self._file is not None:
            self._file.close()


def is_readers_file(name: str) -> bool:
    """Whether a file of that name in a store's directory is one of this module's."""
    return name in (READERS_NAME, _TEMPORARY_NAME) or _NUMBERED.fullmatch(name) is not None


def removable(store: Path, unnamed: Mapping[str, int]) -> set[str]:
    """Choose the files that no reader needs, now or later; only for the writer, who is then to delete them.

    The others are recorded in a new generation, unless the newest knows them all; those that nobody reads in end.

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
            if not kept.items() <= _record(store, numbers[-1]).items():
                _make(store, numbers[-1] + 1, kept)
        # What one of them recorded is going, or is in the newest's record, too.
        for number in numbers[:-1]:
            if number > 0:  # that one is for good: a reader who may not write may need it
                _end(store, number)
    except OSError as error:  # no locks, no right to open one, a full disk: the next writer tries again
        _logger.info("%s: files that readers may need are kept: %s", store, error)
    return gone


def _joined(store: Path) -> IO[bytes] | None:
    """The file of the newest generation, its lock shared."""
    file = None
    for _ in range(_MOST_TRIES):
        newest = 0
        with suppress(OSError):  # a directory that cannot be listed; in generation 0 a reader keeps most
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
    """Numbers of the generations that there are, the oldest first."""
    names = [entry.name for entry in store.iterdir()]
    found = [int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))]
    return sorted([*found, 0] if READERS_NAME in names else found)


def _path(store: Path, number: int) -> Path:
    return store / (f"readers.{number}.lock" if number else READERS_NAME)


def _opened(path: Path) -> IO[bytes] | None:
    """A generation's file, generation 0 made if need be; where it is another user's, reading it is enough."""
    make = os.O_CREAT if path.name == READERS_NAME else 0
    for flags in (os.O_RDWR | make, os.O_RDONLY):
        with suppress(OSError):
            return os.fdopen(os.open(path, flags, 0o666), "rb")
    return None


@contextmanager
def _alone(store: Path, number: int) -> Iterator[bool]:
    """Hold a generation's lock alone, without waiting; false where somebody shares it.

    Raises:
        OSError: it cannot be known.
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
    """Remove a generation's file if nobody reads in it."""
    with _alone(store, number) as free:
        if free:
            _path(store, number).unlink()


def _make(store: Path, number: int, unnamed: Mapping[str, int]) -> None:
    """Begin a generation; it is there with its record or not at all.

    Nothing is synced: after a power failure an empty record only means that these files are recorded again.
    """
    write_whole(_path(store, number), json.dumps(unnamed), durable=False, temporary_name=_TEMPORARY_NAME)


def _record(store: Path, number: int) -> dict[str, object]:
    """Return what a generation's file records, or nothing if the file cannot be read."""
    if number == 0:
        return {}
    try:
        content = json.loads(_path(store, number).read_text())
    except (ValueError, FileNotFoundError):
        return {}
    return content if isinstance(content, dict) else {}

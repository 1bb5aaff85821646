"""The number of the last acknowledged commit, in a file beside ``store.db``.

After a kill, SQLite recovers its log up to the first frame that is damaged, and says nothing of the commits that
came after it. So every commit also gives itself a number, in the header of the database, and a commit is only
acknowledged when this file holds its number. A transaction that finds a lower number in the database than in the
file knows that commits are lost.

The order of the steps makes a kill harmless: the database is on disk before the number is written, so the number
in a sound database is never lower. The file has two places, which are written in turn, each with a checksum. So
a torn write destroys the older number only.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import xxhash

from rapidin.storage.store_files import COMMITS_NAME
from rapidin.support import open_regular, write_whole

COMMITS_TEMPORARY_NAME = ".store.commits.tmp"
_PLACE_BYTES = 4096
"""Distance of the two places: no disk writes larger sectors, so a failing write spoils one place at most."""
_NUMBER = re.compile(rb"([0-9]{10}) ([0-9a-f]{16})\n")
_logger = logging.getLogger(__name__)


class CommitCounter:
    """The file with the number of the last acknowledged commit; only the writer of the store changes it.

    Attributes:
        path: path of the file.
    """

    def __init__(self, store: Path) -> None:
        """Refer to the file of the store in the directory `store`."""
        self.path = store / COMMITS_NAME

    def acknowledged(self) -> int:
        """Return the number of the last acknowledged commit; 0 if the file is missing or holds no number."""
        return max(self._numbers(), default=0)

    def is_intact(self) -> bool:
        """Tell whether the file holds a number, or is missing; a kill or a failing write may spoil one of two."""
        return not self.path.exists() or bool(self._numbers())

    def acknowledge(self, number: int) -> None:
        """Record that the commit `number` is on disk, and wait until the record is, too.

        A failure is logged and not raised, because the commit itself has succeeded.
        """
        try:
            if len(self._numbers()) < 2:  # also removes what a stranger or a bad disk left
                content = _place(number).ljust(_PLACE_BYTES, b"\n") * 2
                write_whole(self.path, content, temporary_name=COMMITS_TEMPORARY_NAME, follow=False)
                return
            descriptor = open_regular(self.path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, _place(number), _PLACE_BYTES * (number % 2))
                getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS lacks the first
            finally:
                os.close(descriptor)
        except OSError as error:
            _logger.warning(
                "%s: the number of the last commit was not written (%s); the commit itself is safe",
                *(self.path, error.strerror or error),
            )

    def _numbers(self) -> list[int]:
        try:
            descriptor = open_regular(self.path, os.O_RDONLY)
        except OSError:
            return []
        try:
            content = os.pread(descriptor, 2 * _PLACE_BYTES, 0)
        except OSError:
            return []
        finally:
            os.close(descriptor)
        found = (_NUMBER.match(content, start) for start in (0, _PLACE_BYTES))
        return [int(match[1]) for match in found if match and match[0] == _place(int(match[1]))]


def _place(number: int) -> bytes:
    text = f"{number:010}"
    return f"{text} {xxhash.xxh3_64_hexdigest(text.encode())}\n".encode()

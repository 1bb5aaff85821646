"""The names of a store's files, and operating-system errors translated to the project's own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rapidin.errors import StoreError, StoreSpaceError

DATABASE_NAME = "store.db"
SEGMENTS_NAME = "segments"
INDEXES_NAME = "indexes"
COMMITS_NAME = "store.commits"
CHANGED_IN_PLACE = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", COMMITS_NAME)
"""Files of a store that are changed in place; each other one is written once, under a new name."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def refuse_inside_store(path: Path) -> None:
    """Check that `path` is not inside the directory of a store, which holds nothing but the store's own files.

    Raises:
        StoreError: `path` is inside a store.
    """
    for above in path.resolve().parents:
        if os.access(above / DATABASE_NAME, os.F_OK):
            raise StoreError(f"{path}: it is inside the store {above}; give a directory elsewhere")


def refuse_links(store: Path) -> None:
    """Check that no file or folder of the store in the directory `store` is a symbolic link.

    A command that writes would change files elsewhere through it, and the removal of garbage would delete some.

    Raises:
        StoreError: one of them is a link.
    """
    with file_errors(store):
        links = sorted(entry.name for entry in os.scandir(store) if entry.is_symlink())
    if links:
        raise StoreError(
            f"{store / links[0]}: it is a symbolic link, and a store's own files must lie in its directory: put "
            "what it points to in its place, or remove it"
        )


def refuse_other_names(store: Path) -> None:
    """Check that no file of the store that is changed in place has a second name elsewhere.

    Raises:
        StoreError: one has, so it is a part of another directory, too.
    """
    for name in CHANGED_IN_PLACE:
        path = store / name
        with file_errors(path), suppress(FileNotFoundError):
            if (names := os.lstat(path).st_nlink) > 1:
                raise StoreError(
                    f"{path}: the file has {names} names (hard links, as 'cp -al' makes them), so a change would "
                    "change all of them: copy the store with 'cp -a', and write to the copy"
                )


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the body, which works on `path`, into a `StoreError` that names it.

    Raises:
        StoreSpaceError: the disk, quota or file-size limit is used up.
        StoreError: anything else, for example missing permission.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            raise StoreSpaceError(
                f"{path}: no space left to write ({reason}); make room and run the same command again"
            ) from error
        advice = "; check the permissions" if error.errno in _NOT_ALLOWED else ""
        raise StoreError(f"{path}: {reason}{advice}") from error

"""The names of a store's files, and operating-system errors translated to the project's own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapidin.errors import StoreError, StoreSpaceError

DATABASE_NAME = "store.db"
SEGMENTS_NAME = "segments"
INDEXES_NAME = "indexes"

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

"""A directory that appears complete or not at all: it is built beside its place and renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapidin.errors import StoreError, StoreLockedError
from rapidin.storage.store_files import file_errors, refuse_inside_store
from rapidin.support import sync

SUFFIX = ".partial"


@contextmanager
def built_aside(target: Path) -> Iterator[Path]:
    """Make an empty directory, named like `target` with `SUFFIX`, that becomes `target` at the end of the
    ``with``.

    An error in the body removes it. If a process was killed, the next one that builds the same directory removes
    the remains. The files in it must be on disk when the body ends.

    Raises:
        StoreError: `target` is not a directory or holds something, or its place cannot be written to.
        StoreLockedError: another process is building it.
    """
    target = target.absolute()
    check_free(target)
    partial = target.with_name(target.name + SUFFIX)
    with file_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        # A link would lead the cleaning below elsewhere.
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(descriptor, partial)
        with file_errors(partial):
            _empty(partial)
        try:
            yield partial
            with file_errors(target):
                sync(partial)
                partial.rename(target)  # this also replaces an empty directory
                sync(target.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # the error of the body is the one to report
            raise
    finally:
        os.close(descriptor)


def check_free(target: Path) -> None:
    """Check that there is nothing, or an empty directory, at `target`.

    Raises:
        StoreError: there is something at `target`, or the name is not possible.
    """
    with file_errors(target):
        if target.name == "" or (target.exists() and not target.is_dir()):
            raise StoreError(f"{target}: it cannot be created; give the name of a new or empty directory")
        if target.is_dir() and (found := sorted(path.name for path in target.iterdir())):
            raise StoreError(f"{target}: the directory holds {found[0]!r}; give a new or empty one")
        refuse_inside_store(target)


def _lock(descriptor: int, partial: Path) -> None:
    """Lock the directory as long as the descriptor is open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have finished and renamed the directory since it was opened.
        mine = partial.exists() and os.path.samestat(partial.stat(), os.fstat(descriptor))
    except BlockingIOError:
        mine = False
    if not mine:
        raise StoreLockedError(f"{partial}: another process is writing it; wait until it has finished")


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

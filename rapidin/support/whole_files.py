"""Files that are written whole: a reader finds the old content or the new one, never a part of it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]
"""A text, which is written as UTF-8; bytes; or a function that writes the content to a file opened for bytes."""


def write_whole(
    path: str | Path,
    content: Content,
    *,
    durable: bool = True,
    temporary_name: str | None = None,
    follow: bool = True,
) -> None:
    """Write a file under a temporary name in the same directory, then give it its own name.

    An existing file is replaced. When an error is raised, the old file is as it was and the
    temporary one is gone; only a kill can leave the temporary one behind.

    Args:
        path: the file; its directory must exist.
        content: what is written.
        durable: whether the file survives a power failure once this function has returned. Syncing takes a few
            milliseconds; content that is easily made again does not need it.
        temporary_name: name of the temporary file. A caller that is the only writer gives one, so that the next
            call overwrites what a kill left behind. None: a name of this thread, which begins with ``.rapidin-``.
        follow: whether a link at `path` is followed; otherwise the file takes its place.

    Raises:
        OSError: the file cannot be written, or `path` is a directory or a device.
    """
    # Renaming over a link would cut it, and renaming over a device would destroy the device.
    path = Path(path).resolve() if follow else Path(path)
    if path.exists() and not path.is_file():
        raise OSError(None, "it is not a file")
    # Threads have numbers of their own across all processes, so two writers never share a temporary file.
    temporary = path.with_name(temporary_name or f".rapidin-{os.getpid()}-{threading.get_native_id()}.part")
    try:
        write_content(temporary, content)
        if durable:
            sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_content(path: Path, content: Content) -> None:
    """Write a new file: the first step of `write_whole`, for callers that take its steps one by one.

    A file or link of that name, which a kill or a stranger left, is removed first.

    Raises:
        OSError: the file cannot be written.
    """
    if path.is_symlink() or path.is_file():  # anything else is a device, or an error when it is opened
        path.unlink()
    # O_NONBLOCK: opening a pipe would wait for its other end, and is an error instead.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


def open_regular(path: Path, flags: int) -> int:
    """Open a file that must be a regular one, neither a link nor a pipe; return its descriptor.

    Args:
        path: the file.
        flags: how to open it, for example `os.O_RDONLY`; `os.O_CREAT` gives a new file the usual permissions.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    # O_NONBLOCK: opening a pipe would wait for its other end.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(None, "it is not a regular file", str(path))


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on disk.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

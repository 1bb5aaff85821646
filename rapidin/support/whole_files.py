"""Files that are written whole: a reader finds the old content or the new one, never a part of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]
"""A text, which is written as UTF-8; bytes; or a function that writes the content to a file opened for bytes."""


def write_whole(
    path: str | Path, content: Content, *, durable: bool = True, temporary_name: str | None = None
) -> None:
    """Write a file under a temporary name in the same directory, then give it its own name.

    An existing file is replaced. A link is followed. When an error is raised, the old file is as it was and the
    temporary one is gone; only a kill can leave the temporary one behind.

    Args:
        path: the file; its directory must exist.
        content: what is written.
        durable: whether the file survives a power failure once this function has returned. Syncing takes a few
            milliseconds; content that is easily made again does not need it.
        temporary_name: name of the temporary file. A caller that is the only writer gives one, so that the next
            call overwrites what a kill left behind. None: a name of this thread, which begins with ``.rapidin-``.

    Raises:
        OSError: the file cannot be written, or `path` is a directory or a device.
    """
    # Renaming over a link would cut it, and renaming over a device would destroy the device.
    path = Path(path).resolve()
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
    """Write a file in place: the first step of `write_whole`, for callers that take its steps one by one.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


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

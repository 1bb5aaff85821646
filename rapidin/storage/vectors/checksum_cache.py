"""Files that a process has compared with their checksums, so that it does so again only if they change."""

from __future__ import annotations

import threading
from pathlib import Path

from rapidin.errors import StoreCorruptError
from rapidin.storage.store_files import file_errors
from rapidin.storage.vectors.segment_writing import file_checksum


class VerifiedFiles:
    """Files whose size and checksum were right at the last check; several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Path, tuple[int, int, int, str]] = {}  # size, time of change, inode, checksum

    def verify(self, path: Path, size: int, checksum: str, advice: str, recheck: bool = False) -> bool:
        """Compare a file's size and checksum; the checksum is computed only once unless the file changes.

        Args:
            path: file to check.
            size: number of bytes that it must have.
            checksum: XXH3-128 that it must have, hexadecimal.
            advice: advice for a file that differs, which ends the error message.
            recheck: whether the checksum is computed even if that was done before.

        Returns:
            Whether the checksum was computed.

        Raises:
            StoreCorruptError: the file is missing or differs.
        """
        with file_errors(path):
            if not path.is_file():
                raise StoreCorruptError(f"{path}: the file is missing; {advice}")
            status = path.stat()
            if status.st_size != size:
                raise StoreCorruptError(f"{path}: it has {status.st_size:,} bytes instead of {size:,}; {advice}")
            seen = (status.st_size, status.st_mtime_ns, status.st_ino, checksum)
            with self._lock:
                known = self._seen.get(path) == seen
            if known and not recheck:
                return False
            found, _ = file_checksum(path)
        with self._lock:
            if found == checksum:
                self._seen[path] = seen
                return True
            self._seen.pop(path, None)
        raise StoreCorruptError(f"{path}: its checksum is wrong, so it was altered or damaged; {advice}")


VERIFIED_FILES = VerifiedFiles()
"""Files that this process has verified. All stores share this, because a path means the same for all of them."""

"""Segments that stay open between searches, because mapping one again costs a page fault for each of its pages."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from rapidin.storage.vectors.segment_writing import SegmentRecord
from rapidin.storage.vectors.segments import Segment, open_segment


class OpenedSegments:
    """The segments of a store that searches have opened; several threads may use it.

    A segment that no row names any more is closed when the next state of the store is read, or at `close`. Until
    then it occupies disk space, even if its file was removed.

    Args:
        path: directory of the store.
        dimension: K.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self._path = path
        self._dimension = dimension
        self._lock = threading.Lock()
        self._kept: dict[SegmentRecord, Segment] = {}

    def segment(self, record: SegmentRecord) -> Segment:
        """Return the open segment of a record. Its file is checked each time, and read again if it has changed.

        Raises:
            StoreCorruptError: the file is missing, altered, of another size, or no such segment.
            StoreFormatError: this rapidin does not know the codec of its vectors.
        """
        with self._lock:
            kept = self._kept.get(record)
            self._kept[record] = open_segment(self._path, record, self._dimension, kept=kept)
            return self._kept[record]

    def keep_only(self, records: Iterable[SegmentRecord]) -> None:
        """Close all segments but these."""
        named = set(records)
        with self._lock:
            self._kept = {record: segment for record, segment in self._kept.items() if record in named}

    def close(self) -> None:
        """Close all segments; a search that still uses one keeps it open until it ends."""
        self.keep_only(())

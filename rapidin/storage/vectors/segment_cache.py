"""Segments stay open between searches: to map one anew costs every page of it another fault."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from rapidin.storage.vectors.segment_reading import Segment, open_segment
from rapidin.storage.vectors.segment_writing import SegmentRecord


class OpenedSegments:
    """The segments of a store that searches have opened; serves several threads.

    What no row names any more is let go of when the next state of the store is read, or at `close`. Until then it
    takes its room on the disk, although its file may be removed already.

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
        """The open segment of a record; its file is looked at every time, and read again if it has changed.

        Raises:
            StoreCorruptError, StoreFormatError: as `open_segment`.
        """
        with self._lock:
            kept = self._kept.get(record)
            self._kept[record] = open_segment(self._path, record, self._dimension, kept=kept)
            return self._kept[record]

    def keep_only(self, records: Iterable[SegmentRecord]) -> None:
        """Let go of all segments but these."""
        named = set(records)
        with self._lock:
            self._kept = {record: segment for record, segment in self._kept.items() if record in named}

    def close(self) -> None:
        """Let go of all of them; whoever searches in one keeps it until then."""
        self.keep_only(())

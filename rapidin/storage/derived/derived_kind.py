"""The protocol of a kind of derived data, and the facts of the store that it works with.

Derived data is made from a store's samples on request and kept beside them; it can be thrown away without loss. It
is one row in the database, perhaps a file that belongs to all of it, and one part for each segment that it covers,
perhaps with a file of its own. Everything about it that does not depend on the kind is written once: building in
steps that a kill cannot hurt (`derived_building`), checking, repairing and describing (`inspection`), removal of
files that no row names (`maintenance.garbage`), coverage after a compaction, and notes about what an export or a
copy of the store leaves behind. A new kind is one class and one line in `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rapidin.errors import StoreCorruptError
from rapidin.settings import ProbeShape
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord
from rapidin.storage.scan import Scan
from rapidin.storage.vectors import Codec, Rows, SegmentRecord, SegmentSource

StepProgress = Callable[[str, int, int], None]
"""Function that is told the name of a step, how much of it is done, and how much there is to do."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store that derived data belongs to.

    Attributes:
        path: directory of the store.
        codec: codec of its vectors.
        dimension: K.
        segments: all segments, by database id.
        probe_shape: shape of a probe of the curvature.
    """

    path: Path
    codec: Codec
    dimension: int
    segments: Mapping[int, SegmentRecord]
    probe_shape: ProbeShape


@dataclass(frozen=True, slots=True)
class BuildWork:
    """The state of a store that a kind builds from, which no other process changes meanwhile.

    Attributes:
        store: the store.
        rows: live samples' vectors.
        segments: function that gives the segment of a database id, open and checked.
        samples: function that yields the id and the content hash of every live sample.
        scan: scan that compares vectors, for kinds that need it.
        progress: function that is told what is done.
    """

    store: StoreFacts
    rows: Rows
    segments: SegmentSource
    samples: Callable[[], Iterator[tuple[str, str]]]
    scan: Scan
    progress: StepProgress


@dataclass(frozen=True, slots=True)
class BuildStep:
    """The content of one transaction: the record, whose own parts do not count, and new parts of it."""

    record: DerivedRecord
    parts: Sequence[PartRecord]


class DerivedKind(Protocol):
    """A kind of derived data; it has no state, so that one object serves all stores.

    Attributes:
        name: name in the database; never changes.
        title: name in messages, such as ``index 'ivf'``.
        folder: folder of its files in the store's directory. Kinds may share one.
        suffixes: endings of its files; a file in the folder that has another ending is not the store's.
        serves_searches: whether it is an index, see `indexes.IndexKind`: `Snapshot.search` can use it, and
            ``info`` lists it among the indexes.
        follows_samples: whether it knows samples wherever they lie, so that it still covers them after a
            compaction has moved them. The parts of such a kind have no files.
        travels: whether copies and exports of a store take it with them, see `travelling`; only a kind that
            follows samples can.
    """

    name: str
    title: str
    folder: str
    suffixes: frozenset[str]
    serves_searches: bool
    follows_samples: bool
    travels: bool

    def command(self, store: Path) -> str:
        """Return the command that builds, extends and repairs the data."""

    def remedy(self, store: Path) -> str:
        """Return the remedy for damaged data, the end of a message."""

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        """Read the shared file and the parameters, and check them; the row itself was checked before.

        Raises:
            StoreCorruptError: something is missing or is not as it was written.
            StoreFormatError: a newer rapidin made it.
        """

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:
        """Read the file of a part, and check it.

        Raises:
            StoreCorruptError: something is missing or is not as it was written.
            StoreFormatError: a newer rapidin made it.
        """

    def advice(self, store: StoreFacts, record: DerivedRecord, covered: int, samples: int) -> str | None:
        """Return advice to the store's owner, or None.

        Args:
            store: store that the data belongs to.
            record: what the database says about the data.
            covered: number of live samples that the data covers.
            samples: number of live samples of the store.

        Raises:
            StoreFormatError: a newer rapidin made it.
        """

    def settled(self, store: StoreFacts, existing: DerivedRecord | None, options: Any) -> Any:
        """Return the options to build with: `options`, completed by those that existing data was built with.

        Raises:
            SettingError: an option cannot be used, or it contradicts the data that is there.
        """

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],
        options: Any,
    ) -> Iterator[BuildStep]:
        """Build the data, or extend it, in steps; each step is one transaction once its files are on disk.

        Args:
            work: state of the store to build from.
            existing: sound part of the data that is there; None: all of it is built, and the first step replaces
                older data.
            segment_ids: database ids of the segments with live samples that are not covered.
            known: database ids of the segments that were covered before and whose parts were damaged.
            options: options from `settled`.
        """

    def left_behind(self, target: Path) -> str:
        """Return a note that the export or copy at `target` does not contain the data."""


def check_row(store: Path, record: DerivedRecord, title: str, remedy: str) -> None:
    """Check that the row of derived data is as it was written.

    Raises:
        StoreCorruptError: the row was altered.
    """
    if not record.intact:
        raise StoreCorruptError(f"{store}/store.db: the row of {title} was altered; {remedy}")


def check_part_row(
    store: Path, part: PartRecord, segment: SegmentRecord | None, title: str, remedy: str
) -> SegmentRecord:
    """Check that the row of a part is possible and that its segment is there; return the segment.

    Raises:
        StoreCorruptError: the row was altered, or there is no such segment.
    """
    # SQLite does not check the types of columns.
    typed = part.file is None or (isinstance(part.file.bytes, int) and isinstance(part.file.checksum, str))
    if not typed or segment is None or part.rows != segment.rows:
        raise StoreCorruptError(f"{store}/store.db: the row of a part of {title} was altered; {remedy}")
    return segment

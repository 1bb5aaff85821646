"""The protocol of a kind of index, and the common part of kinds of indexes.

An index is derived data that a search can use, so its kind is a `DerivedKind` that can also open it for searches.
A new kind is one file with a class that implements `IndexKind`, most easily on top of `IndexKindBase`, and one
line in `derived.kinds`. ``tests/storage/derived/kind_suite.py`` has the tests that it must pass as derived data,
and ``tests/storage/vector_source_conformance.py`` those that a snapshot must pass with it.

q queries · n rows · K numbers in a vector · k results.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError, StoreCorruptError, StoreFormatError
from rapidin.storage.derived.derived_kind import DerivedKind, StoreFacts, check_part_row
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord, WrittenFile
from rapidin.storage.derived.indexes.list_making import IvfOptions
from rapidin.storage.scan import Ends, Scan
from rapidin.storage.store_files import INDEXES_NAME
from rapidin.storage.vectors import Rows, SegmentRecord, SegmentSource

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Parameters = TypeVar("Parameters", bound="DataclassInstance")

LEAST_COVERED = 0.5
"""Minimum share of the rows that an index must cover to be used unasked."""


class SearchIndex(Protocol):
    """An index over the rows of one state of a store, checked and ready; serves several threads.

    What is found for a query does not depend on the queries beside it. Rows that the index does not cover are
    compared with the queries, so that none of them is missed.
    """

    def saves_time(self, queries: int) -> bool:
        """Return whether a search that nobody told to use the index should use it.

        It must find enough of the best, and take less time than a comparison of all rows.

        Args:
            queries: number of queries that are searched for together.
        """
        ...

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        largest: bool,
        smallest: bool,
        nprobe: int | None,
        segments: SegmentSource,
    ) -> Ends:
        """Find the best, with scores that were computed from the stored vectors.

        Args:
            queries: queries, float32 [q, K].
            k: number of results that are wanted for each query.
            largest: whether the largest scores are wanted.
            smallest: whether the smallest scores are wanted.
            nprobe: number of lists to read, in place of the index's own; None for a kind that has no lists.
            segments: function that gives the segment of a database id.

        Returns:
            Scores and indexes of rows; an end that is not wanted is empty or None.

        Raises:
            StoreCorruptError: a segment is damaged.
            StoreError: a score is beyond single precision.
        """
        ...


class IndexKind(DerivedKind, Protocol):
    """A kind of derived data that `Snapshot.search` can use; its `serves_searches` is true.

    Attributes:
        takes_nprobe: whether a search may say how many lists it reads.
    """

    takes_nprobe: bool

    def priority(self, samples: int) -> int:
        """Return the place of this kind where a store has indexes of several; ``auto`` tries the largest first.

        Args:
            samples: number of samples of the store.
        """
        ...

    def open(self, store: StoreFacts, record: DerivedRecord, rows: Rows, scan: Scan) -> SearchIndex:
        """Read and check an index, whose row was checked before.

        Args:
            store: store that the index belongs to.
            record: what the database says about the index.
            rows: vectors of the live samples.
            scan: scan that compares candidates, and rows that the index does not cover.

        Raises:
            StoreCorruptError: a file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made the index.
        """
        ...


def is_index(kind: DerivedKind) -> TypeGuard[IndexKind]:
    """Return whether searches can use derived data of a kind."""
    return kind.serves_searches


class IndexKindBase:
    """The common part of kinds of indexes whose parts cover one segment each and are files.

    Attributes:
        name, title: name of the kind, and its title in messages; see `DerivedKind`.
        suffix: ending of the files of parts.
    """

    name: str
    title: str
    suffix: str
    folder = INDEXES_NAME
    serves_searches = True
    follows_samples = False
    travels = False
    takes_nprobe = False

    def command(self, store: Path) -> str:
        """Return the command that builds, extends and repairs the index."""
        return f"rapidin index {store} --type {self.name}"

    def remedy(self, store: Path) -> str:
        """Return the remedy for a damaged index, the end of a message."""
        return f"build it again with '{self.command(store)} --retrain', or search with --exact"

    def left_behind(self, target: Path) -> str:
        """Return a note that the copy at `target` has no such index."""
        return f"{self.title} is not in {target}: 'rapidin index STORE --type {self.name}' builds it in a store"

    def covers_too_little(self, store: StoreFacts, covered: int, samples: int) -> str | None:
        """Return advice to extend the index if searches do not use it because it covers too few samples."""
        if covered >= LEAST_COVERED * samples:
            return None
        return (
            f"it covers {covered:,} of {samples:,} samples, so searches take it only if told to: "
            f"'{self.command(store.path)}' extends it"
        )

    def refuse_options(self, options: IvfOptions) -> None:
        """Refuse options, for a kind that has none.

        Raises:
            SettingError: an option was given.
        """
        options.check()
        if options != IvfOptions():
            raise SettingError(
                "--nlist, --nprobe, --recall and --train-sample are options of index 'ivf': leave them out with "
                f"{self.name!r}"
            )

    def part_name(self, build: str, segment: SegmentRecord) -> str:
        """Return the file name of the part that covers a segment.

        The name holds the index and the segment, so that a row that leads to a wrong file is noticed.

        Args:
            build: name of the index, which no other index has.
            segment: segment that the part covers.
        """
        return f"{build}-{Path(segment.name).stem}{self.suffix}"

    def checked_part(self, store: StoreFacts, build: str, part: PartRecord) -> tuple[SegmentRecord, WrittenFile]:
        """Check that the row of a part names the file of this index for its segment; return segment and file.

        Raises:
            StoreCorruptError: it does not.
        """
        remedy = self.remedy(store.path)
        segment = check_part_row(store.path, part, store.segments.get(part.segment_id), self.title, remedy)
        if part.file is None or part.file.name != self.part_name(build, segment):
            raise StoreCorruptError(
                f"{store.path}/store.db: the row of a part of {self.title} was altered; {remedy}"
            )
        return segment, part.file


def to_text(parameters: DataclassInstance) -> str:
    """Return parameters of an index as the database keeps them."""
    return json.dumps(asdict(parameters))


def from_text(kind: type[Parameters], text: str, store: Path) -> Parameters:
    """Return the parameters of an index of the store at `store`, whose row was checked before.

    Raises:
        StoreFormatError: this rapidin does not know them.
    """
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreFormatError(
            f"{store}/store.db: the parameters of an index are unknown here; upgrade rapidin"
        ) from error

"""What work on a whole store did; like `records`, small and frozen, and `records.to_json` turns them into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did.

    Attributes:
        segments_before, segments_after: files of vectors.
        removed: deleted or replaced samples of which nothing is left.
        bytes_before, bytes_after: of vectors and database, as the store counts them; what a reader still uses is
            removed later.
        seconds: that it took.
        uncovered: by index, how many live samples it covered before and does not cover any more.
    """

    segments_before: int
    segments_after: int
    removed: int
    bytes_before: int
    bytes_after: int
    seconds: float
    uncovered: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        path: of its directory.
        format: ``safetensors`` or ``numpy``.
        samples: in it.
        bytes: of all its files.
        seconds: that it took.
        notes: sentences about derived data of the store that the export does not contain.
    """

    path: str
    format: str
    samples: int
    bytes: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        added: new samples.
        replaced: samples whose content differed; their old vectors are gone.
        skipped: samples that were in the store already; their metadata was brought up to date.
        samples_total: live samples in the store afterwards.
    """

    added: int
    replaced: int
    skipped: int
    samples_total: int


@dataclass(frozen=True, slots=True)
class RecodeReport:
    """What recoding a store made.

    Attributes:
        samples: in the new store.
        bits: per number of its vectors.
        bytes_before, bytes_after: of the vectors, in the old store and in the new one.
        seconds: that it took.
        notes: sentences about derived data of the old store that the new one does not have.
    """

    samples: int
    bits: int
    bytes_before: int
    bytes_after: int
    seconds: float
    notes: tuple[str, ...] = ()

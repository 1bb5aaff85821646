"""Records of what a store holds, and of what work on a whole store did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import computed_field

from rapidin.settings import StatedSettings, shares_of


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One immutable file of vectors.

    Attributes:
        name: name of the file under ``segments/``.
        rows: number of vectors in the file, including those of deleted samples.
        live: number of vectors of samples that were not deleted or replaced.
        bytes: size of the file.
        checksum: XXH3-128 of the file, hexadecimal.
    """

    name: str
    rows: int
    live: int
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class DerivedInfo:
    """Derived data of a store, such as an index, or the way of searching ``exact``, which needs no data.

    Attributes:
        name: name of the kind of derived data, or ``exact``.
        covered: number of live samples that the derived data knows.
        uncovered: number of live samples that it does not know; a search by an index compares them exactly.
        bytes: size of the files of the derived data.
        parameters: settings that it was built with, and figures that were measured then.
        advice: advice to the user; None if nothing needs to be done.
    """

    name: str
    covered: int
    uncovered: int
    bytes: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class DerivedReport:
    """The result of building derived data, such as an index.

    Attributes:
        name: name of the kind.
        trained: whether it was built from scratch; if not, the existing one was extended.
        added: number of live samples that this run covered.
        covered, uncovered, bytes, parameters, advice: see `DerivedInfo`.
        seconds: duration of the run.
        repaired: number of files and database rows of the derived data that were missing, damaged or altered, and
            were written again.
    """

    name: str
    trained: bool
    added: int
    covered: int
    uncovered: int
    bytes: int
    seconds: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    advice: str | None = None
    repaired: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo(StatedSettings):
    """The contents of a store, with the settings that it was created with.

    Attributes:
        path: directory of the store.
        samples: number of live samples.
        deleted: number of deleted samples whose vectors are still on disk.
        traced_parameters: number of parameters that a gradient has.
        traced_tensors: number of parameter tensors that a gradient has.
        bytes_vectors: size of the vectors on disk.
        bytes_metadata: size of the database on disk.
        bytes_unnamed: size of the files that the database no longer names. The first writer that finds no reader
            that may need them deletes them.
        format_version: version of the store's format.
        created: time of creation.
        indexes: ways to search the store, the exact one first.
        derived: derived data that is not an index.
        segments: files of vectors.
        metadata_fields: names of the metadata fields.
        learning_rates: learning rate of the training at each checkpoint; empty if it is not known of all of them.
    """

    path: str
    samples: int
    deleted: int
    traced_parameters: int
    traced_tensors: int
    bytes_vectors: int
    bytes_metadata: int
    bytes_unnamed: int
    format_version: int
    created: str
    indexes: tuple[DerivedInfo, ...]
    derived: tuple[DerivedInfo, ...]
    segments: tuple[SegmentInfo, ...]
    metadata_fields: tuple[str, ...]
    learning_rates: tuple[float, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each checkpoint in a score; empty without checkpoints."""
        return shares_of(self.learning_rates, len(self.checkpoints))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def curvature(self) -> DerivedInfo | None:
        """The store's curvature, one of `derived`; None if it has none."""
        return next((one for one in self.derived if one.name == "curvature"), None)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of checking a store.

    Attributes:
        samples: number of live samples.
        problems: sentences that each name a file or a sample.
    """

    samples: int
    problems: tuple[str, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class CompactReport:
    """The result of a compaction.

    Attributes:
        segments_before, segments_after: number of files of vectors.
        removed: number of deleted or replaced samples whose vectors were removed from the files.
        bytes_before, bytes_after: size of vectors and database, as the store counts them; files that a reader
            still uses are removed later.
        seconds: duration of the work.
        uncovered: number of live samples that derived data covered before and does not cover any more, by kind.
        notes: sentences that say how to extend that derived data.
    """

    segments_before: int
    segments_after: int
    removed: int
    bytes_before: int
    bytes_after: int
    seconds: float
    uncovered: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The result of an export.

    Attributes:
        path: directory of the export.
        format: ``safetensors`` or ``numpy``.
        samples: number of samples in it.
        bytes: size of all its files.
        seconds: duration of the work.
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
    """The result of an import.

    Attributes:
        added: number of new samples.
        replaced: number of samples whose content differed; their old vectors are gone.
        skipped: number of samples that were in the store already; their metadata was brought up to date.
        samples_total: number of live samples in the store afterwards.
    """

    added: int
    replaced: int
    skipped: int
    samples_total: int


@dataclass(frozen=True, slots=True)
class RecodeReport:
    """The result of recoding a store.

    Attributes:
        samples: number of samples in the new store.
        bits: number of bits of each number in the new store's vectors.
        bytes_before, bytes_after: size of the vectors, in the old store and in the new one.
        seconds: duration of the work.
        notes: sentences about derived data of the old store that the new one does not have.
    """

    samples: int
    bits: int
    bytes_before: int
    bytes_after: int
    seconds: float
    notes: tuple[str, ...] = ()

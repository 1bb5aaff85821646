"""Conversion between samples and rows of the tables; outside this package there are only records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from rapidin.errors import StoreCorruptError, StoreError
from rapidin.records import Hit, Sample
from rapidin.storage.catalog.schema import SampleRow
from rapidin.storage.filters import metadata_hash, metadata_text

_ADVICE = "restore store.db from a backup, or delete the sample and ingest it again"
_MOST_NESTED = 100
"""Number of brackets below which JSON is certainly not nested too deeply to be written."""
_FIELDS = (
    "sample_id",
    "segment_id",
    "position",
    "scale",
    "prompt",
    "response",
    "metadata_json",
    "metadata_hash",
    "content_hash",
    "file",
    "row",
    "tokens",
    "targets",
    "truncated",
    "target_spans",
)
"""Columns that a row's checksum covers, in this order."""


@dataclass(frozen=True, slots=True)
class NewSample(Sample):
    """A sample to be stored: a `records.Sample` with the digest of its metadata.

    Attributes:
        metadata_hash: digest of `metadata`; it is made on creation, and a given one is ignored.

    Raises:
        StoreError: a metadata value has no form in JSON; raised on creation.
    """

    metadata_hash: str = ""

    @classmethod
    def of(cls, sample: Sample, **changes: Any) -> Self:
        """Make a sample to be stored from the fields of `sample` and the `changes`."""
        return cls(**({field.name: getattr(sample, field.name) for field in fields(Sample)} | changes))

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "metadata_hash", metadata_hash(self.metadata))
        except StoreError as error:
            raise StoreError(f"sample {self.id!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """New metadata of a stored sample whose text, and so its vector, stays as it is.

    Attributes:
        id: id of the live sample.
        content_hash: `Sample.content_hash`, by which a store checks that the text did not change.
        metadata: metadata that the sample is to have.
        file: data file that the sample now comes from.
        row: number of the row in that file, counted from 1.
    """

    id: str
    content_hash: str
    metadata: Mapping[str, Any]
    file: str
    row: int

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """Return the change that gives a stored sample the metadata, file and row of `sample`."""
        return cls(sample.id, sample.content_hash, sample.metadata, sample.file, sample.row)


def sample_values(sample: NewSample) -> dict[str, Any]:
    """Return the columns of `sample` that do not depend on its vector.

    Raises:
        StoreError: a text is not valid Unicode, so SQLite cannot hold it; the message names the id.
    """
    values = {
        "sample_id": sample.id,
        "prompt": sample.prompt,
        "response": sample.response,
        "metadata_json": metadata_text(sample.metadata),
        "metadata_hash": sample.metadata_hash,
        "content_hash": sample.content_hash,
        "file": sample.file,
        "row": sample.row,
        "tokens": sample.tokens,
        "targets": sample.targets,
        "truncated": sample.truncated,
        "target_spans": spans_text(sample.target_spans),
    }
    _check_unicode(sample.id, values)
    return values


def changed_values(change: MetadataChange) -> dict[str, Any]:
    """Return the columns that `change` gives new values to.

    Raises:
        StoreError: a metadata value has no form in JSON, or a text is not valid Unicode; the message names the id.
    """
    try:
        digest = metadata_hash(change.metadata)
    except StoreError as error:
        raise StoreError(f"sample {change.id!r}: {error}") from error
    values = {
        "metadata_json": metadata_text(change.metadata),
        "metadata_hash": digest,
        "file": change.file,
        "row": change.row,
    }
    _check_unicode(change.id, values)
    return values


def _check_unicode(sample_id: str, values: Mapping[str, Any]) -> None:
    """Refuse text that SQLite cannot hold.

    Raises:
        StoreError: a text is not valid Unicode; the message names the id.
    """
    for name, value in values.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise StoreError(
                f"sample {sample_id!r}: its {name} holds half of a surrogate pair, which is not a character; "
                "correct or leave out the row"
            ) from error


def spans_text(spans: Sequence[tuple[int, int]]) -> str | None:
    """Return `Sample.target_spans` as JSON, or None if there are none."""
    return json.dumps([list(span) for span in spans], separators=(",", ":")) if spans else None


def spans_of(text: str | None) -> tuple[tuple[int, int], ...]:
    """Return the spans that `spans_text` made the text from.

    Raises:
        ValueError: the text is not the JSON of pairs of ascending whole numbers.
    """
    found = [] if text is None else json.loads(text)
    if not isinstance(found, list) or (text is not None and not found):
        raise ValueError("it is not a list of spans")
    last = 0
    for span in found:
        if not isinstance(span, list) or [type(offset) for offset in span] != [int, int]:
            raise ValueError("a span is not a pair of whole numbers")
        if not last <= span[0] <= span[1]:
            raise ValueError("spans do not ascend")
        last = span[1]
    return tuple((start, end) for start, end in found)


def values_checksum(values: Mapping[str, Any]) -> str:
    """Return the XXH3-64 of a row's columns, hexadecimal."""
    return text_checksum(json.dumps([values[name] for name in _FIELDS]))


def text_checksum(text: str) -> str:
    """Return the XXH3-64 of a text, hexadecimal."""
    return str(xxhash.xxh3_64_hexdigest(text.encode()))


def row_values(row: SampleRow) -> dict[str, Any]:
    """Return the columns of `row` that its checksum covers."""
    return {name: getattr(row, name) for name in _FIELDS}


def sample_of(row: SampleRow) -> Sample:
    """Return the record of a row.

    Raises:
        StoreCorruptError: the row is not as it was written.
    """
    try:
        intact = values_checksum(row_values(row)) == row.checksum
    except (TypeError, ValueError):  # JSON refuses bytes, which a damaged column may come back as
        intact = False
    if not intact:
        raise StoreCorruptError(f"store.db: the row of sample {row.sample_id!r} was altered: {_ADVICE}")
    try:
        metadata = _metadata_of(row.metadata_json)
        spans = spans_of(row.target_spans)
        _check_types(row)
    except (StoreError, ValueError, TypeError, RecursionError) as error:
        # A stranger's row may have the right checksum all the same.
        raise StoreCorruptError(
            f"store.db: the row of sample {row.sample_id!r} holds what no store holds ({error}): {_ADVICE}"
        ) from error
    return Sample(
        id=row.sample_id,
        prompt=row.prompt,
        response=row.response,
        metadata=metadata,
        file=row.file,
        row=row.row,
        tokens=row.tokens,
        targets=row.targets,
        truncated=row.truncated,
        content_hash=row.content_hash,
        target_spans=spans,
    )


def is_sound(row: SampleRow) -> bool:
    """Tell whether a row is as it was written."""
    try:
        sample_of(row)
    except StoreCorruptError:
        return False
    return True


def _metadata_of(text: str) -> dict[str, Any]:
    """Return the metadata that `metadata_text` made the text from.

    Raises:
        ValueError, RecursionError: the text is not the JSON of an object, or is nested too deeply.
    """
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is not a JSON object")
    # What was written can be written again; a stranger's may be nested so deeply that it can be read only.
    return metadata if text.count("[") + text.count("{") < _MOST_NESTED else json.loads(metadata_text(metadata))


def _check_types(row: SampleRow) -> None:
    """Check that each column has values of its type, which SQLite does not promise.

    Raises:
        ValueError: a value is of another type, or a number is negative.
    """
    for name in ("sample_id", "prompt", "response", "content_hash", "file"):
        if not isinstance(getattr(row, name), str):
            raise ValueError(f"its {name} is not a text")
    for name in ("row", "tokens", "targets", "position"):
        value = getattr(row, name)
        if type(value) is not int or value < 0:
            raise ValueError(f"its {name} is not a whole number from 0 up")
    if not isinstance(row.scale, float):
        raise ValueError("its scale is not a number")
    if not isinstance(row.truncated, bool):
        raise ValueError("its truncated is neither true nor false")


def hits_of(scores: NDArray[np.float32], indexes: NDArray[np.int64], samples: Mapping[int, Sample]) -> list[Hit]:
    """Make the hits of one query from inner products and the indexes of samples; an index of −1 is no hit."""
    found = ((float(score), samples[int(i)]) for score, i in zip(scores, indexes, strict=True) if i >= 0)
    return [Hit.of(sample, rank, score) for rank, (score, sample) in enumerate(found, start=1)]

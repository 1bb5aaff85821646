"""The plan of an ingest: which rows are new, changed, unchanged or unusable. No model is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rapidin.data import read_rows
from rapidin.errors import RowError
from rapidin.ingest.spool import PlannedSample, SampleSpool
from rapidin.records import IngestListener, RowFailure
from rapidin.settings import Shape, Template
from rapidin.storage import MetadataChange, NewSample, Store, metadata_hash
from rapidin.text import EncodedSample, Encoder, TextSample, recognise

_ROWS_AT_ONCE = 500
"""Number of rows whose texts are in memory together; one query of the store covers them."""

OnRowError = Callable[[RowError], None]
"""Function that is called with the error of a row that cannot be used."""


@dataclass(slots=True)
class IngestPlan:
    """A plan of what an ingest does with the rows of the data files.

    Attributes:
        new: samples whose gradients are to be computed.
        replaced: number of new samples that take the place of a stored one.
        updates: new metadata of stored samples whose text did not change.
        skipped: number of rows that the store has already, or that the data has twice.
        failures: rows that cannot be used.
        tokens: number of tokens of the new samples.
        truncated: number of new samples that were cut to the maximum length.
        shape: shape of the first usable row; None if there is no such row.
    """

    new: SampleSpool
    replaced: int = 0
    updates: list[MetadataChange] = field(default_factory=list)
    skipped: int = 0
    failures: list[RowFailure] = field(default_factory=list)
    tokens: int = 0
    truncated: int = 0
    shape: Shape | None = None


def make_plan(
    files: Sequence[Path],
    template: Template | None,
    store: Store | None,
    encoder: Callable[[], Encoder],
    spool: SampleSpool,
    skip_errors: bool,
    listener: IngestListener,
) -> IngestPlan:
    """Read all rows once, compare them with the store and put the new ones into the spool.

    Args:
        files: data files.
        template: the user's template; None to recognise the shape of each row.
        store: the store; None if it is yet to be created.
        encoder: function that makes the encoder; it takes seconds, so it is called only at the first new row.
        spool: an empty spool, which becomes the plan's `new`.
        skip_errors: whether unusable rows are noted in the plan; otherwise the error of the first one is raised.
        listener: listener that is told the number of rows that were read.

    Raises:
        DataFileError: a file cannot be read.
        RowError: a row cannot be used and errors are not to be skipped.
        StoreError: the spool cannot be written, for example because the disk is full.
    """
    plan = IngestPlan(spool)

    def failed(error: RowError) -> None:
        if not skip_errors:
            raise error
        plan.failures.append(RowFailure(error.file, error.row, error.id, error.reason))

    seen: dict[str, tuple[str, str, int]] = {}
    samples = text_samples(files, template, failed)
    rows = 0
    while chunk := list(islice(samples, _ROWS_AT_ONCE)):
        stored = store.content_hashes([sample.id for sample in chunk]) if store is not None else {}
        for sample in chunk:
            plan.shape = plan.shape or sample.shape
            try:
                _place(plan, sample, stored, seen, encoder)
            except RowError as error:
                failed(error)
        rows += len(chunk)
        listener.reading(rows)
    spool.finish()
    return plan


def text_samples(files: Sequence[Path], template: Template | None, failed: OnRowError) -> Iterator[TextSample]:
    """Yield the rows of data files as text.

    Args:
        files: data files.
        template: the user's template; None to recognise the shape of each row.
        failed: function that is called with the error of a row that cannot be used.
    """
    for row in read_rows(files, failed):
        try:
            sample = recognise(row, template)
        except RowError as error:
            failed(error)
            continue
        yield sample


def _place(
    plan: IngestPlan,
    sample: TextSample,
    stored: dict[str, tuple[str, str]],
    seen: dict[str, tuple[str, str, int]],
    encoder: Callable[[], Encoder],
) -> None:
    """Add one sample to the part of the plan that it belongs to.

    Args:
        plan: the plan.
        sample: the sample.
        stored: hashes of content and metadata of stored samples, by id.
        seen: content hash, file and row of the samples that came before, by id.
        encoder: see `make_plan`.

    Raises:
        RowError: the row cannot be used.
        StoreError: the spool cannot be written.
    """
    first = seen.get(sample.id)
    if first is not None:
        content_hash, file, row = first
        if content_hash != sample.content_hash:
            raise RowError(
                sample.file,
                sample.row,
                f"{file}, row {row}, has the same id and another text: give each row an id of its own",
                sample.id,
            )
        plan.skipped += 1
        return
    content, metadata = stored.get(sample.id, (None, None))
    if content != sample.content_hash:
        encoded = encoder().encode(sample)
        replaces = content is not None
        plan.new.add(PlannedSample(_new_sample(sample, encoded), encoded.ids, encoded.targets, replaces))
        plan.replaced += replaces
        plan.tokens += len(encoded.ids)
        plan.truncated += encoded.truncated
    elif metadata != metadata_hash(sample.metadata):
        change = MetadataChange(sample.id, sample.content_hash, sample.metadata, sample.file, sample.row)
        plan.updates.append(change)
    else:
        plan.skipped += 1
    seen[sample.id] = (sample.content_hash, sample.file, sample.row)


def _new_sample(text: TextSample, encoded: EncodedSample) -> NewSample:
    """Make the sample that the store will hold."""
    return NewSample(
        id=text.id,
        prompt=encoded.prompt,
        response=encoded.response,
        metadata=text.metadata,
        file=text.file,
        row=text.row,
        tokens=len(encoded.ids),
        targets=sum(encoded.targets),
        truncated=encoded.truncated,
        content_hash=text.content_hash,
        target_spans=encoded.target_spans,
    )

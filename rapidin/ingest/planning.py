"""First look at the data: which rows are new, changed, unchanged or unusable, without loading the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rapidin.data import read_rows
from rapidin.errors import DataFileError, RowError
from rapidin.records import IngestListener, RowFailure
from rapidin.settings import Shape, Template
from rapidin.storage import Store, metadata_hash
from rapidin.text import EncodedSample, Encoder, TextSample, recognise

_ROWS_AT_ONCE = 2_000

OnRowError = Callable[[RowError], None]


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row whose gradient is to be computed.

    Attributes:
        content_hash: of its text when the plan was made.
        replaces: whether it takes the place of a stored sample of the same id.
    """

    content_hash: str
    replaces: bool


@dataclass(slots=True)
class Plan:
    """What is to be done with the rows of the data files.

    Attributes:
        new: places (file, row) whose gradients are to be computed.
        updates: samples of which only the metadata changed.
        skipped: rows that the store has already, or that came twice.
        failures: rows that cannot be used.
        tokens: of the new samples.
        truncated: of the new samples, cut to the maximum length.
        shape: of the first usable row.
    """

    new: dict[tuple[str, int], PlannedRow] = field(default_factory=dict)
    updates: list[TextSample] = field(default_factory=list)
    skipped: int = 0
    failures: list[RowFailure] = field(default_factory=list)
    tokens: int = 0
    truncated: int = 0
    shape: Shape | None = None

    @property
    def replaced(self) -> int:
        """How many of the new rows replace a stored sample."""
        return sum(row.replaces for row in self.new.values())


def make_plan(
    files: Sequence[Path],
    template: Template | None,
    store: Store | None,
    encoder: Callable[[], Encoder],
    skip_errors: bool,
    listener: IngestListener,
) -> Plan:
    """Read all rows once and compare them with the store.

    Args:
        files: the data files.
        template: the user's, None for the built-in ones.
        store: None where it is to be created.
        encoder: makes the encoder; called when the first new row is met, for it takes seconds.
        skip_errors: note unusable rows in the plan instead of raising the first one's error.
        listener: told how many rows were read.

    Raises:
        DataFileError: a file cannot be read.
        RowError: a row cannot be used and errors are not to be skipped.
    """
    plan = Plan()

    def failed(error: RowError) -> None:
        if not skip_errors:
            raise error
        plan.failures.append(RowFailure(error.file, error.row, error.id, error.reason))

    seen: dict[str, tuple[str, str]] = {}
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
    return plan


def text_samples(files: Sequence[Path], template: Template | None, failed: OnRowError) -> Iterator[TextSample]:
    """Read rows as text; unusable ones go to `failed`."""
    for row in read_rows(files, failed):
        try:
            sample = recognise(row, template)
        except RowError as error:
            failed(error)
            continue
        yield sample


def encoded_samples(
    files: Sequence[Path], template: Template | None, plan: Plan, encoder: Encoder
) -> Iterator[tuple[TextSample, EncodedSample] | None]:
    """Read the rows a second time and encode those that the plan wants.

    Unusable rows are in the plan already.

    Yields:
        A sample, or None for a row that the plan does not want, so that who reads can stop at any row.

    Raises:
        DataFileError: a file has changed since the plan was made.
    """

    def known(_: RowError) -> None:
        pass

    changed = "has changed while it was being ingested: run the same command again"
    missing = dict.fromkeys(plan.new)
    for sample in text_samples(files, template, known):
        planned = plan.new.get((sample.file, sample.row))
        if planned is None:
            yield None
            continue
        if planned.content_hash != sample.content_hash:
            raise DataFileError(f"{sample.file}, row {sample.row}: the file {changed}")
        del missing[sample.file, sample.row]
        yield sample, encoder.encode(sample)
    for file, row in missing:
        raise DataFileError(f"{file}, row {row}: the file {changed}")


def _place(
    plan: Plan,
    sample: TextSample,
    stored: dict[str, tuple[str, str]],
    seen: dict[str, tuple[str, str]],
    encoder: Callable[[], Encoder],
) -> None:
    """Put one sample where it belongs in the plan."""
    first = seen.get(sample.id)
    if first is not None:
        if first[0] != sample.content_hash:
            raise RowError(
                sample.file,
                sample.row,
                f"its id is also that of {first[1]}, whose text is another: give each row an id of its own",
                sample.id,
            )
        plan.skipped += 1
        return
    content, metadata = stored.get(sample.id, (None, None))
    if content != sample.content_hash:
        encoded = encoder().encode(sample)
        plan.new[sample.file, sample.row] = PlannedRow(sample.content_hash, replaces=content is not None)
        plan.tokens += len(encoded.ids)
        plan.truncated += encoded.truncated
    elif metadata != metadata_hash(sample.metadata):
        plan.updates.append(sample)
    else:
        plan.skipped += 1
    seen[sample.id] = (sample.content_hash, f"{sample.file}, row {sample.row}")

"""Small frozen records of samples, ingests and stores; none of them holds a row, a session or a tensor.

Those of searches are in `results`; `as_json` turns any of them into what ``--json`` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """A training sample as a store holds it.

    Attributes:
        id: unique among the store's live samples.
        prompt: text before the first target token, as the model saw it.
        response: text from the first target token on.
        metadata: every field of the row that is neither text nor id.
        file: the data file it came from, as the user named it.
        row: its number in that file, counted from 1.
        tokens: length of the sample in tokens, after truncation.
        targets: how many of them are targets of the loss.
        truncated: whether tokens were cut off.
        content_hash: digest of the text that the gradient was computed from.
        target_spans: parts of a chat's `text` whose tokens are targets, each as its first character and the one
            behind its last, in order; parts behind the last token are left out. Empty for every other shape:
            there the response is the target, and it was tokenised apart from the prompt.
    """

    id: str
    prompt: str
    response: str
    metadata: Mapping[str, Any]
    file: str
    row: int
    tokens: int
    targets: int
    truncated: bool
    content_hash: str
    target_spans: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        """Prompt and response together."""
        return self.prompt + self.response


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row left out by ``--on-error skip``."""

    file: str
    row: int
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        added: new samples.
        replaced: samples whose text had changed; their old vectors are gone.
        updated: samples of which only the metadata had changed.
        skipped: rows that were in the store already.
        failed: rows left out because of an error; they are in `failures`.
        truncated: samples of this run that were cut to the maximum length.
        samples_total: live samples in the store afterwards.
        tokens: processed, without padding.
        seconds: of the whole run, loading the model included.
        tokens_per_second: tokens by the seconds spent on gradients; 0 where there were none.
        store: path of the store.
        failures: the rows left out, and why.
    """

    added: int
    replaced: int
    updated: int
    skipped: int
    failed: int
    truncated: int
    samples_total: int
    tokens: int
    seconds: float
    tokens_per_second: float
    store: str
    failures: tuple[RowFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One immutable file of vectors.

    Attributes:
        name: of the file under ``segments/``.
        rows: vectors in it, deleted ones included.
        live: vectors of samples that were not deleted or replaced.
        bytes: size of the file.
        checksum: XXH3-128 of the file, hexadecimal.
    """

    name: str
    rows: int
    live: int
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """A way of searching a store: ``exact``, which needs nothing, or an index.

    Attributes:
        name: ``exact``, or the kind of the index.
        covered: live samples that it knows.
        uncovered: live samples that a search compares exactly besides.
        bytes: of its files.
        parameters: that it was built with, and what was measured then.
        advice: what should be done about it, None: nothing.
    """

    name: str
    covered: int
    uncovered: int
    bytes: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What building an index did.

    Attributes:
        name: kind of the index.
        trained: whether it was built anew; else the one that was there was extended.
        added: live samples that this run covered.
        covered, uncovered, bytes, parameters, advice: as of `IndexInfo`.
        seconds: of the run.
        repaired: its files and rows of the database that were missing, damaged or altered, and were made anew.
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


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store holds. Sizes are on disk, `bytes_unnamed` of files that the database no longer names.

    Those go with the first writer that finds no reader who may need them.
    """

    path: str
    samples: int
    deleted: int
    projection: str
    projection_dim: int
    shuffles: int
    seed: int
    objective: str
    normalise_layers: bool
    bits: int
    traced_parameters: int
    traced_tensors: int
    model: str
    adapter: str | None
    dtype: str
    quantization: str
    parameters: str | None
    max_length: int | None
    targets: str
    bytes_vectors: int
    bytes_metadata: int
    bytes_unnamed: int
    format_version: int
    created: str
    indexes: tuple[IndexInfo, ...]
    segments: tuple[SegmentInfo, ...]
    metadata_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Outcome of checking a store: `problems` are sentences, each naming the file or sample."""

    samples: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return not self.problems

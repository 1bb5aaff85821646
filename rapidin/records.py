"""Small frozen records that rapidin takes and returns; none of them holds a row, a session or a tensor.

`to_json` turns any of them into the plain dictionaries that ``--json`` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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

    @property
    def text(self) -> str:
        """Prompt and response together."""
        return self.prompt + self.response


@dataclass(frozen=True, slots=True)
class Hit:
    """A training sample found by a search.

    Attributes:
        rank: counted from 1.
        score: its influence on the generation; with layer-wise normalisation in [−1, 1] up to noise.
        sample: the sample itself.
    """

    rank: int
    score: float
    sample: Sample


@dataclass(frozen=True, slots=True)
class Query:
    """A generation whose influences were asked for.

    Attributes:
        id: the row's id, or a number from 0.
        prompt: text the model was given.
        generation: text it answered, or was said to have answered.
        generated: True where the model wrote the generation in this search.
        tokens: length in tokens.
        targets: tokens of the generation.
        truncated: whether tokens were cut off.
        metadata: the other fields of the query's row.
    """

    id: str
    prompt: str
    generation: str
    generated: bool
    tokens: int
    targets: int
    truncated: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one query found: `proponents` from the largest influence down, `opponents` from the smallest up.

    `index` is the way that was taken: ``exact``, or the name of the index that chose the candidates.
    """

    query: Query
    proponents: tuple[Hit, ...]
    opponents: tuple[Hit, ...] = ()
    index: str = "exact"


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
    layer_norm: bool
    bits: int
    parameters: int
    parameter_tensors: int
    model: str
    adapter: str | None
    dtype: str
    quantization: str
    modules: str | None
    max_length: int | None
    loss: str
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


def to_json(record: Any) -> Any:
    """Turn records, and tuples and mappings of them, into what ``json.dumps`` takes.

    A hit is flattened: rank and score beside the sample's own fields and its text.
    """
    if isinstance(record, Hit):
        return {"rank": record.rank, "score": record.score, **to_json(record.sample)}
    if isinstance(record, Sample):
        plain = {name.name: to_json(getattr(record, name.name)) for name in fields(record)}
        return {"id": plain.pop("id"), "text": record.text, **plain}
    if isinstance(record, VerifyReport):
        return {"ok": record.ok, "samples": record.samples, "problems": list(record.problems)}
    if hasattr(record, "__dataclass_fields__"):
        return {name.name: to_json(getattr(record, name.name)) for name in fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_json(item) for item in record]
    return record

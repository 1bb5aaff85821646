"""Records of what an ingest is about to do, and of what it did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preflight:
    """The work that an ingest is about to do.

    Attributes:
        samples: number of samples whose gradients will be computed.
        tokens: number of these samples' tokens.
        truncated: number of these samples that are cut to the maximum length.
        skipped: number of rows that the store has already.
        bytes: size by which the store will grow.
        bytes_free: free space on the store's disk.
        probes: number of probes that will be computed for the curvature.
    """

    samples: int
    tokens: int
    truncated: int
    skipped: int
    bytes: int
    bytes_free: int
    probes: int = 0


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that ``--on-error skip`` left out, and the reason.

    Attributes:
        file: the data file, as the user named it.
        row: number of the row in its file, counted from 1.
        id: the sample's id; None if the row has none.
        reason: message that says what is wrong and what to do.
    """

    file: str
    row: int
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class IngestedCurvature:
    """The curvature of a store after an ingest.

    Attributes:
        probes: number of probes that there are.
        computed: number of probes that this ingest computed, or would compute if it was a dry run.
        version: name of the curvature, see `SearchResult`; None after a dry run if there is none yet.
        advice: what to do, for example because the store has grown much since the probes were drawn; None if
            nothing needs to be done.
    """

    probes: int
    computed: int
    version: str | None
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingest.

    Attributes:
        added: number of new samples.
        replaced: number of samples whose text had changed; their old vectors are gone.
        updated: number of samples whose metadata alone had changed.
        skipped: number of rows that were in the store already.
        failed: number of rows left out because of an error; `failures` lists them.
        truncated: number of samples of this run that were cut to the maximum length.
        samples_total: number of live samples in the store afterwards.
        tokens: number of tokens processed, without padding.
        seconds: duration of the whole run, loading the model included.
        tokens_per_second: tokens divided by the seconds spent on gradients; 0 if there were none.
        store: path of the store.
        failures: the rows that were left out, with the reasons.
        curvature: the store's curvature; None if it has none.
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
    curvature: IngestedCurvature | None = None

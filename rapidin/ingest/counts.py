"""What a run of caching did."""

from __future__ import annotations

from dataclasses import dataclass, field

from rapidin.records import RowFailure


@dataclass(slots=True)
class CachingCounts:
    """Samples and tokens whose gradients were computed and stored.

    Attributes:
        added: new samples.
        replaced: samples that took the place of one with the same id.
        tokens: of all of these, without padding.
        truncated: of these, cut to the maximum length.
        failures: rows whose gradient could not be used.
    """

    added: int = 0
    replaced: int = 0
    tokens: int = 0
    truncated: int = 0
    failures: list[RowFailure] = field(default_factory=list)

"""What an ingest tells while it runs; the command line draws it, a program may log it or ignore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]
"""How long work on a store reports what it has done: how many samples are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What an ingest is about to do.

    Attributes:
        samples: whose gradients will be computed.
        tokens: of these samples.
        truncated: of these samples, cut to the maximum length.
        skipped: rows that the store has already.
        bytes: that the store will grow by.
        bytes_free: on the store's disk.
    """

    samples: int
    tokens: int
    truncated: int
    skipped: int
    bytes: int
    bytes_free: int


class IngestListener:
    """Base of listeners; does nothing."""

    def reading(self, rows: int) -> None:
        """`rows` rows were looked at so far."""

    def planned(self, preflight: Preflight) -> None:
        """The data was read; nothing was computed yet."""

    def loading_model(self, name: str) -> None:
        """The model is about to be loaded."""

    def computing(self, processes: int) -> None:
        """The model is loaded, in so many processes, and computing begins."""

    def advanced(self, samples: int, tokens: int) -> None:
        """The gradients of so many more samples are done."""

    def committed(self, samples: int) -> None:
        """So many samples were stored, for good, by one commit."""

"""How work tells what it has done while it runs; the command line draws it, a program may log or ignore it."""

from __future__ import annotations

from collections.abc import Callable

from rapidin.records.ingest_reports import Preflight

Progress = Callable[[int, int], None]
"""A function that work on a store calls with the number of samples done, and the number of all."""


class IngestListener:
    """Base of the listeners of an ingest; its methods do nothing."""

    def reading(self, rows: int) -> None:
        """So many rows were read so far."""

    def planned(self, preflight: Preflight) -> None:
        """The data was read; nothing was computed yet."""

    def loading_model(self, name: str) -> None:
        """The model is about to be loaded."""

    def computing(self, processes: int) -> None:
        """The model is loaded, in so many processes, and computing begins."""

    def advanced(self, samples: int, tokens: int) -> None:
        """The gradients of so many more samples are done."""

    def committed(self, samples: int) -> None:
        """One commit stored so many samples for good."""

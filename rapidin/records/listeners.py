"""Listeners: running work tells them its progress. The command line draws it, and a program may ignore it."""

from __future__ import annotations

from collections.abc import Callable

from rapidin.records.ingest_reports import Preflight

Progress = Callable[[int, int], None]
"""A function that work on a store calls with the number of samples done, and the number of all."""


class IngestListener:
    """Base of the listeners of an ingest; its methods do nothing."""

    def reading(self, rows: int) -> None:
        """This number of rows was read so far."""

    def planned(self, preflight: Preflight) -> None:
        """The data was read; nothing was computed yet."""

    def loading_model(self, name: str) -> None:
        """The model is about to be loaded."""

    def computing(self, processes: int) -> None:
        """The model is loaded, in this number of processes, and computing begins."""

    def advanced(self, samples: int, tokens: int) -> None:
        """The gradients of this number of further samples and tokens are done."""

    def committed(self, samples: int) -> None:
        """One commit stored this number of samples for good."""

    def curvature(self, done: int, total: int) -> None:
        """This number of the curvature's probes was computed so far, and this is the number of all to compute."""

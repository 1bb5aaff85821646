"""The newest curvature of a store, ready to correct queries; it is read once and kept until it changes."""

from __future__ import annotations

import threading

from rapidin.attribution import QueryCorrection
from rapidin.errors import DerivedNotFoundError
from rapidin.records import Sample
from rapidin.settings import MeasureChoice
from rapidin.storage import Store


class StoreCorrections:
    """Gives the correction of queries by a store's newest curvature; serves several threads.

    Args:
        store: the store; it is not closed here.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._newest: QueryCorrection | None = None

    @property
    def command(self) -> str:
        """The command that computes the curvature, or draws the probes that are missing."""
        return f"rapidin curvature {self._store.path}"

    def of(self, measure: MeasureChoice | None) -> QueryCorrection | None:
        """Return the correction that a measure needs; None if it needs none.

        Args:
            measure: ``influence``, ``cosine``, or None: ``influence`` if the store has a curvature.

        Raises:
            DerivedNotFoundError: ``influence`` is wanted and the store has no curvature.
            StoreCorruptError: the curvature is damaged.
            StoreFormatError: a newer rapidin computed it.
        """
        if measure == "cosine":
            return None
        with self._store.snapshot() as snapshot, self._lock:
            version = snapshot.curvature_version()
            if version is None:
                if measure is None:
                    return None
                raise DerivedNotFoundError(
                    f"{self._store.path}: there is no curvature, which --measure influence needs: compute it with "
                    f"'{self.command}', or give --measure cosine"
                )
            if self._newest is None or self._newest.version != version:
                self._newest = QueryCorrection(snapshot.curvature())
            return self._newest

    def probed(self, correction: QueryCorrection) -> list[tuple[Sample, int] | None]:
        """Find the samples that a correction's probes were drawn from, see `Snapshot.probed`."""
        with self._store.snapshot() as snapshot:
            return snapshot.probed(correction.sample.keys)

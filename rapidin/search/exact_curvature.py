"""What the curvature takes away from queries, computed with the gradients of the curvature's probes.

Shape letters: q queries · K projection dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution import PROBE_SEED, FisherDraw, Probe, Probes, QueryCorrection, TakenAway
from rapidin.model import ModelParts, StoreCorrections, StoreModel
from rapidin.settings import Objective

logger = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]
"""Function that is told the name of a step, how much of it is done, and of how much."""


class ExactCurvature:
    """Computes what one correction takes away from queries; the probes' samples are read and encoded once.

    Args:
        corrections: corrections of the store.
        correction: the correction.
        tell: function that is told of progress, or None.
    """

    def __init__(self, corrections: StoreCorrections, correction: QueryCorrection, tell: Tell | None) -> None:
        self._corrections = corrections
        self._correction = correction
        self._tell = tell
        self._probes: Probes | None = None

    def taken_away(
        self, parts: ModelParts, raw: NDArray[np.float32], objective: Objective
    ) -> list[TakenAway] | None:
        """Compute what is taken away from some queries, in one pass over the probes if memory suffices.

        Args:
            parts: parts of the model.
            raw: RapidGrads of the queries before the correction, not normalised, float32 [q, K]; at most
                `SectionExplainer.taken_together`.
            objective: objective of the queries.

        Returns:
            One result for each query; None if memory does not suffice.

        Raises:
            StoreMismatchError: a sample's text gives other tokens than at ingest.
        """
        if len(raw) > parts.explainer.taken_together:
            return None
        coefficients = self._correction.coefficients(raw, objective)
        found = parts.explainer.taken_away(self._of(parts), coefficients, self._told)
        if found is not None or len(raw) == 1:
            return found
        half = len(raw) // 2
        first = self.taken_away(parts, raw[:half], objective)
        second = None if first is None else self.taken_away(parts, raw[half:], objective)
        return None if first is None or second is None else first + second

    def of_all(
        self, model: StoreModel, raw: NDArray[np.float32], objective: Objective
    ) -> Iterator[TakenAway | None]:
        """Yield what is taken away from any number of queries; None if memory does not suffice.

        Memory holds the results of one group of queries at a time; each group takes a pass over the probes.
        """
        first = 0
        while first < len(raw):
            with model.exclusive(objective) as parts:
                group = raw[first : first + max(1, parts.explainer.taken_together)]
                found = self.taken_away(parts, group, objective)
            if found is None:
                logger.warning(
                    "the gradients of the probes do not fit into memory: what the curvature takes away is "
                    "restored from its sketch, as without --exact-curvature"
                )
            elif found[0].restored:
                logger.warning(
                    "%d of %d probes cannot be computed again, most likely because their samples were deleted or "
                    "replaced: their parts are restored from the sketch; '%s' draws others",
                    found[0].restored,
                    found[0].probes,
                    self._corrections.command,
                )
            waiting: list[TakenAway | None] = [None] * len(group) if found is None else [*found]
            found = None  # nothing of this group is held while the next one is computed
            while waiting:
                yield waiting.pop(0)
            first += len(group)

    def _of(self, parts: ModelParts) -> Probes:
        """Read and encode the samples of the probes."""
        if self._probes is None:
            found = self._corrections.probed(self._correction)
            again = [
                None if one is None else Probe(parts.encoder.encode_stored(one[0]), FisherDraw(PROBE_SEED, one[1]))
                for one in found
            ]
            self._probes = Probes(again, self._correction.sample.scale, self._correction.sketched)
        return self._probes

    def _told(self, done: int, total: int) -> None:
        if self._tell is not None:
            self._tell("probes", done, total)

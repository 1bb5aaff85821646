"""RapidGrads of single target tokens of a generation (Eq. 7), which add up to the RapidGrad of the whole.

Tensors whose gradient is zero in exact arithmetic (key biases) are an exception, because their rounding errors do
not add up.

The RapidGrad of token j is the projection of ∇ℓ_j / g, where g is the number of target tokens. Each tensor is
divided by the norm of the *whole* generation's gradient: with the norms of the token's own gradient, a token's
influences would not be parts of the generation's influences. The factored projection divides by norms of sketches,
so here it divides by the norms of the whole generation's sketch.

Shape letters: g target tokens · K projection dimension · L parameter tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution.gradients import NamedSample
from rapidin.attribution.influence.prefixes import Prefix, target_places
from rapidin.attribution.rapidgrads import (
    ONE_STATE,
    BatchRunner,
    ModelStates,
    RapidGradEngine,
    TokenBudget,
    joined_query,
    too_large_for_memory,
    visiting,
)
from rapidin.errors import GradientError
from rapidin.settings import Objective


class TokenQueries:
    """Computes the RapidGrads of a generation's target tokens.

    Args:
        engine: engine of the store.
        budget: budget that the batches begin with.
        states: states of the model, each of which gives a section of a RapidGrad.
    """

    def __init__(self, engine: RapidGradEngine, budget: TokenBudget, states: ModelStates = ONE_STATE) -> None:
        self._engine = engine
        self._batches = BatchRunner(engine, budget)
        self._states = states

    def vectors(self, query: NamedSample, raw: Objective | None = None) -> NDArray[np.float32]:
        """Compute the RapidGrads [g, K] of the target tokens, in their order.

        Args:
            query: the query.
            raw: objective whose gradients are projected without layer-wise normalisation; None: the store's
                objective, normalised as the store's settings say.

        Raises:
            GradientError: A gradient is not finite, or the tokens do not fit into memory even one by one.
        """
        sections = []
        with visiting(self._states) as place:
            for number in range(len(self._states.shares)):
                place(number)
                sections.append(self._section(query, raw))
        return joined_query(sections, self._states)

    def _section(self, query: NamedSample, raw: Objective | None) -> NDArray[np.float32]:
        """Compute a section of the RapidGrads, at the state that is in place."""
        places = target_places(query)
        normalised = raw is None and self._engine.normalise_layers
        norms = self._engine.norms(query) if normalised else None
        vectors = np.empty((len(places), self._engine.dimension), np.float32)

        def compute(chosen: list[Prefix]) -> NDArray[np.float32]:
            return self._engine.compute_with_norms(chosen, norms, raw)

        def too_large(prefix: Prefix) -> NDArray[np.float32]:
            raise GradientError(query.id, too_large_for_memory(prefix), "query")

        prefixes = [Prefix(query, place, self._engine) for place in places]
        for positions, batch in self._batches.run(prefixes, compute, too_large):
            vectors[positions] = batch
        if not np.isfinite(vectors).all():
            raise GradientError(
                query.id, "the gradient of one of its tokens is not finite; leave out --by-token", "query"
            )
        return vectors / np.float32(len(places))

"""RapidGrads of single target tokens of a generation (Eq. 7), which add up to the RapidGrad of the whole.

They do so apart from tensors whose gradient is zero in exact arithmetic (key biases): rounding errors do not add
up.

Token j's is the projection of ∇ℓ_j / G, each tensor divided by the norm of the *whole* generation's gradient: with
norms of its own, a token's influences would not be parts of the generation's. The factored projection divides by
norms of sketches, so here, too, the whole's sketch gives them.

Shape letters: g target tokens · K projection dimension · L parameter tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution.gradients import NamedSample, TokenSample
from rapidin.attribution.influence.prefixes import Prefix, target_places
from rapidin.attribution.rapidgrads import RapidGradEngine, TokenBudget, in_batches
from rapidin.errors import GradientError


class TokenQueries:
    """Computes the RapidGrads of a generation's target tokens.

    Args:
        engine: of the store.
        budget: of the batches; halved where memory runs out.
    """

    def __init__(self, engine: RapidGradEngine, budget: TokenBudget) -> None:
        self._engine = engine
        self._budget = budget

    def vectors(self, query: NamedSample) -> NDArray[np.float32]:
        """RapidGrads [g, K] of the target tokens, in their order.

        Raises:
            GradientError: a gradient is not finite, or the tokens do not fit into memory even one by one.
        """
        places = target_places(query)
        norms = self._engine.norms(query) if self._engine.normalise_layers else None
        vectors = np.empty((len(places), self._budget.dimension), np.float32)

        def compute(chosen: list[TokenSample]) -> NDArray[np.float32]:
            return self._engine.compute_with_norms(chosen, norms)

        def too_large(tokens: int) -> NDArray[np.float32]:
            raise GradientError(query.id, self._engine.too_large(tokens).problems[0], "query")

        prefixes = [Prefix(query, place) for place in places]
        for positions, batch in in_batches(prefixes, self._budget, compute, too_large):
            vectors[positions] = batch
        if not np.isfinite(vectors).all():
            raise GradientError(
                query.id, "the gradient of one of its tokens is not finite; leave out --by-token", "query"
            )
        return vectors / np.float32(len(places))

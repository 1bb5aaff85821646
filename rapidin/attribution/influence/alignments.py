"""Products of samples' gradients with a direction, and the gradients' norms, computed batch by batch.

Shape letters: b batch · L parameter tensors · r rows · c columns · n occupied rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rapidin.attribution.gradients import ParameterGradient, TokenSample, squared_norms
from rapidin.attribution.influence.directions import Direction
from rapidin.attribution.rapidgrads import RapidGradEngine
from rapidin.support import WorkingMemory

BLOCK_ELEMENTS = 1 << 23
"""Number of gradient elements that are formed at a time."""


class Aligner:
    """Multiplies samples' gradients with directions; its working memory is kept from batch to batch.

    Args:
        engine: engine that computes the gradients of the store's objective.
    """

    def __init__(self, engine: RapidGradEngine) -> None:
        self._engine = engine
        self._memory = WorkingMemory()

    def aligned(self, samples: Sequence[TokenSample], direction: Direction) -> tuple[Tensor, Tensor]:
        """Compute the products ⟨u_l, s_l⟩ of samples' gradients and their norms ‖s_l‖, float64 [b, L] each."""

        def new(batch: int) -> Alignments:
            return Alignments(batch, direction, self._memory)

        sums, factors = self._engine.accumulate(samples, new, self._engine.objective)
        factors = factors.double().cpu()[:, None]
        return sums[:, :, 0] * factors, sums[:, :, 1].sqrt() * factors


class Alignments:
    """Accumulator of ⟨u_l, s_l⟩ and ‖s_l‖² for every sample and parameter tensor.

    Args:
        batch: number of samples b.
        direction: direction of the query.
        memory: memory that gradients are formed in.
    """

    def __init__(self, batch: int, direction: Direction, memory: WorkingMemory) -> None:
        self._direction = direction
        self._memory = memory
        self._sums = torch.zeros(batch, len(direction.tensors), 2, dtype=torch.float64)

    def consume(self, gradient: ParameterGradient) -> None:
        """Multiply one parameter's gradients with the direction's tensor."""
        wanted = self._direction.tensors[gradient.position]
        sums = self._sums[:, gradient.position]
        for rows, piece in gradient.pieces(BLOCK_ELEMENTS, self._memory):
            flat = piece.flatten(1)
            if wanted is not None:
                sums[:, 0] += (flat @ wanted[rows].flatten().to(flat.device)).double().cpu()
            sums[:, 1] += squared_norms(flat).cpu()

    def result(self) -> Tensor:
        """Return products and squared norms, float64 [b, L, 2]."""
        return self._sums

"""Inner products of every training sample's whole gradient with any number of directions in parameter space.

One pass over the training samples serves as many directions as fit into memory: a batch's gradients are formed
tensor by tensor, multiplied with all directions, and forgotten. Nothing is projected.

Shape letters: q directions · n samples · b batch · L parameter tensors · r rows · c columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidin.attribution.gradients import NamedSample, ParameterGradient, as_matrix, squared_norms
from rapidin.attribution.influence.alignments import BLOCK_ELEMENTS
from rapidin.attribution.influence.directions import whole_gradient
from rapidin.attribution.rapidgrads import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.errors import ComputationError, GradientError
from rapidin.records import Progress
from rapidin.settings import Objective
from rapidin.support import WorkingMemory, free_bytes

Sample = TypeVar("Sample", bound=NamedSample)

WholeGradient = Sequence[Tensor | None]
"""A gradient by parameter tensor, float32 [r, c] each, or None where there is no gradient."""

Reduce = Callable[[Tensor, Tensor], Tensor]
"""Function that makes scores [b, …] from products [b, L, q] and norms ‖s_l‖ [b, L], both float64."""

_ENCODED_AT_ONCE = 512
_DIRECTIONS_SHARE = 0.4
"""Maximum share of free memory for directions."""


def over_tensors(products: Tensor, norms: Tensor) -> Tensor:  # noqa: ARG001 - a `Reduce`
    """Add up the products over the tensors, which gives inner products of whole gradients, [b, q] (Eq. 5)."""
    return products.sum(dim=1)


def query_gradient(
    engine: RapidGradEngine, query: NamedSample, objective: Objective
) -> tuple[list[Tensor | None], Tensor]:
    """Compute the gradient of a query's mean objective, and its tensors' norms, see `whole_gradient`.

    Raises:
        GradientError: The gradient is zero or not finite.
    """
    tensors, norms = whole_gradient(engine, query, objective)
    if not torch.isfinite(norms).all() or not norms.any():
        raise GradientError(query.id, "its gradient is zero or not finite; leave it out")
    return tensors, norms


class GradientProducts:
    """Multiplies the gradients of training samples with directions.

    Args:
        engine: engine of the model; gradients and directions consist of its traced parameters.
        budget: budget that the batches begin with.
        objective: quantity of a target token that is differentiated.
    """

    def __init__(self, engine: RapidGradEngine, budget: TokenBudget, objective: Objective) -> None:
        self._engine = engine
        self._objective = objective
        self._batches = BatchRunner(engine, budget)
        self._memory = WorkingMemory()
        self._elements = sum(math.prod(shape) for shape in engine.shapes)

    @property
    def together(self) -> int:
        """Number of directions that memory has room for at a time; at least one."""
        free = free_bytes(self._engine.device)
        if free is None:
            return 64
        return max(1, int(free * _DIRECTIONS_SHARE) // (4 * self._elements))

    def against(
        self,
        directions: Sequence[WholeGradient],
        samples: Iterable[Sample],
        reduce: Reduce = over_tensors,
        on_progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Multiply every sample's gradient of its mean objective with every direction.

        Args:
            directions: the q directions, at most `together`.
            samples: the n samples; they may be encoded one by one as they are needed.
            reduce: function that turns a batch's products and norms into the scores that are kept.
            on_progress: function that is called with the number of samples that are done.

        Returns:
            The scores from `reduce`, one row per sample, float32 [n, …]; by default inner products [n, q].

        Raises:
            GradientError: A sample's gradient is not finite.
            ComputationError: A sample does not fit into memory.
        """
        stacked = self._stacked(directions)
        count = len(directions)
        parts: list[NDArray[np.float32]] = []
        waiting, done = iter(samples), 0

        def new(batch: int) -> _Products:
            return _Products(batch, stacked, count, self._memory)

        def compute(batch: list[Sample]) -> NDArray[np.float32]:
            sums, factors = self._engine.accumulate(batch, new, self._objective)
            factors = factors.double().cpu()
            products = sums[:, :, :count] * factors[:, None, None]
            kept: NDArray[np.float32] = (
                reduce(products, sums[:, :, count].sqrt() * factors[:, None]).float().numpy()
            )
            return kept

        def too_large(sample: Sample) -> NDArray[np.float32]:
            raise ComputationError(
                f"sample {sample.id!r}: its {len(sample.ids)} tokens do not fit into memory beside {count} "
                "directions: ask with fewer queries at a time, or with another --device"
            )

        while window := list(islice(waiting, _ENCODED_AT_ONCE)):
            rows: NDArray[np.float32] | None = None
            for positions, kept in self._batches.run(window, compute, too_large):
                if rows is None:
                    rows = np.empty((len(window), *kept.shape[1:]), dtype=np.float32)
                    parts.append(rows)
                for position, finite in zip(
                    positions, np.isfinite(kept).reshape(len(kept), -1).all(axis=1), strict=True
                ):
                    if not finite:
                        raise GradientError(
                            window[position].id, "its gradient is not finite; delete it from the store"
                        )
                rows[positions] = kept
                done += len(positions)
                if on_progress is not None:
                    on_progress(done)
        return np.concatenate(parts) if parts else np.empty((0, count), dtype=np.float32)

    def _stacked(self, directions: Sequence[WholeGradient]) -> list[Tensor]:
        """Stack the directions by parameter tensor, float32 [q, r, c] each."""
        stacked = []
        for position, shape in enumerate(self._engine.shapes):
            of_tensor = [direction[position] for direction in directions]
            device = next((tensor.device for tensor in of_tensor if tensor is not None), self._engine.device)
            wanted = torch.zeros(len(directions), *as_matrix(shape), device=device)
            for row, tensor in enumerate(of_tensor):
                if tensor is not None:
                    wanted[row] = tensor
            stacked.append(wanted)
        return stacked


def in_groups(
    products: GradientProducts, queries: int, samples: int, on_progress: Progress | None
) -> Iterable[tuple[range, Callable[[int], None]]]:
    """Divide queries into groups that memory has room for, each with a function that reports progress.

    Args:
        products: products with the model's gradients.
        queries: number of queries.
        samples: number of samples in one pass.
        on_progress: function that is called with the number of samples that are done and the number of all, both
            counted over all passes.

    Yields:
        Numbers of a group's queries, and a function that is called with the number of samples done in its pass.
    """
    together = products.together
    groups = [range(first, min(first + together, queries)) for first in range(0, queries, together)]
    for number, group in enumerate(groups):

        def report(done: int, number: int = number) -> None:
            if on_progress is not None:
                on_progress(number * samples + done, len(groups) * samples)

        yield group, report


class _Products:
    """Accumulator of ⟨d_l, s_l⟩ for every direction, and of ‖s_l‖², float64 [b, L, q + 1].

    Args:
        batch: number of samples b.
        directions: directions by parameter tensor, [q, r, c] each.
        count: number of directions q.
        memory: memory that gradients are formed in.
    """

    def __init__(self, batch: int, directions: Sequence[Tensor], count: int, memory: WorkingMemory) -> None:
        self._directions = directions
        self._memory = memory
        self._count = count
        self._sums = torch.zeros(batch, len(directions), count + 1, dtype=torch.float64)

    def consume(self, gradient: ParameterGradient) -> None:
        """Multiply one parameter's gradients with all directions."""
        wanted = self._directions[gradient.position]
        sums = self._sums[:, gradient.position]
        for rows, piece in gradient.pieces(BLOCK_ELEMENTS, self._memory):
            flat = piece.flatten(1)
            of_rows = wanted[:, rows if isinstance(rows, slice) else rows.to(wanted.device)]
            sums[:, : self._count] += (flat @ of_rows.flatten(1).to(flat.device).T).double().cpu()
            sums[:, self._count] += squared_norms(flat).cpu()

    def result(self) -> Tensor:
        """Return products and squared norms, see the class."""
        return self._sums

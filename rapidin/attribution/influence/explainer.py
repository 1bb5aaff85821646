"""Exact influences: of samples on a generation (Eq. 5), of their tokens (Eq. 6), and token on token (Eq. 8).

The equations are those of Lin et al. 2024 (arXiv 2405.11724). Every value is computed from the gradients
themselves; nothing is projected. The values of a finer level add up to those of the coarser level.

1. One forward and backward pass for the query gives its `Direction`.
2. One pass for each batch of samples gives products with the direction and norms, and so the exact influences.
3. One pass in forward mode for each sample that is to be explained gives its tokens' values (`token_values`).

Shape letters: b batch · L parameter tensors · g targets of the generation · s targets of the sample.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.attribution.gradients import NamedSample, TokenSample, as_matrix
from rapidin.attribution.influence.alignments import Aligner
from rapidin.attribution.influence.directions import (
    ROUNDING,
    ROUNDING_LOW,
    Direction,
    RestoredTensors,
    direction_of,
    whole_gradient,
)
from rapidin.attribution.influence.prefixes import Prefix
from rapidin.attribution.influence.probe_sums import Probes, ProbeSums, sums_that_fit
from rapidin.attribution.influence.token_values import ELEMENT_BYTES, FORWARD, TokenValues
from rapidin.attribution.rapidgrads import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.errors import ComputationError, GradientError
from rapidin.settings import Objective
from rapidin.support import free_bytes, unless_memory_runs_out

logger = logging.getLogger(__name__)

_NO_ROOM = "the generation does not fit into memory: ask about a shorter one, or with --device cpu"
_DIRECTION_SHARE = 0.4
"""Maximum share of free memory for a direction."""
_TANGENTS_SHARE = 0.2
"""Maximum share of free memory for the part of a direction that a sample is differentiated along at a time."""


@dataclass(frozen=True, slots=True)
class ExactInfluence:
    """A sample's exact influence on a generation.

    Attributes:
        score: the influence.
        size: sum of the absolute values of the tensors' parts in it.
        weights: weight of the product with each tensor of the direction, float64 [L].
    """

    score: float
    size: float
    weights: Tensor


class Explainer:
    """Computes exact influences with the model of a RapidGrad engine.

    Args:
        model: the engine's model.
        engine: engine of the store.
        budget: budget that the batches begin with.
        memory: number of bytes that are free for directions; None means what the device has free.
        way: first way in which influences of tokens are computed, see `token_values`.
        directions: number of directions of a query that are held together, and share that memory.
    """

    def __init__(
        self,
        model: nn.Module,
        engine: RapidGradEngine,
        budget: TokenBudget,
        memory: int | None = None,
        way: str = FORWARD,
        directions: int = 1,
    ) -> None:
        self._engine = engine
        self._batches = BatchRunner(engine, budget)
        self._aligner = Aligner(engine)
        self._sums = ProbeSums(engine, budget)
        self._elements = sum(math.prod(shape) for shape in engine.shapes)
        free = free_bytes(engine.device) if memory is None else memory
        self._free = math.inf if free is None else free / directions
        self._rounding = ROUNDING.get(engine.precision, ROUNDING_LOW)
        self._values = TokenValues(model, engine, self._aligner, budget, self._free * _TANGENTS_SHARE, way)

    @property
    def way(self) -> str:
        """The way in which the influences of tokens are computed, see `token_values`."""
        return self._values.way

    @property
    def directions_together(self) -> int:
        """The number of directions that `matrix` should be given at a time."""
        return self._values.together

    def direction(self, query: NamedSample, part: float = 1.0) -> Direction:
        """Compute the gradient of a query's mean loss, or what its RapidGrad says if memory does not suffice.

        Args:
            query: the query.
            part: factor of the direction.

        Raises:
            GradientError: The gradient is zero or not finite.
            ComputationError: Memory does not suffice even for the RapidGrad.
        """
        if self._elements * ELEMENT_BYTES <= self._free * _DIRECTION_SHARE:
            direction = unless_memory_runs_out(lambda: self._exact_direction(query, part))
            if direction is not None:
                return direction
        logger.warning(
            "the query's gradient does not fit into memory: its RapidGrad takes its place, which takes longer and "
            "explains the estimates instead of the exact influence"
        )
        direction = unless_memory_runs_out(lambda: self._restored_direction(query, part))
        if direction is None:
            raise ComputationError(_NO_ROOM)
        return direction

    @property
    def taken_together(self) -> int:
        """The number of queries to ask `taken_away` about at a time; 0 if memory has no room for one."""
        return sums_that_fit(self._free * _DIRECTION_SHARE, self._elements)

    def taken_away(
        self,
        probes: Probes,
        coefficients: NDArray[np.float32],
        section: slice,
        on_progress: Callable[[int], None] | None = None,
    ) -> tuple[list[list[Tensor | None]], list[int]] | None:
        """Compute what the curvature takes away from queries, with the exact gradients of the probes.

        Probes that cannot be computed again are restored from their sketches.

        Args:
            probes: the m probes.
            coefficients: coefficient of each row of Ψ for each query, float32 [q, m].
            section: numbers of a sketch that belong to the model's state that is in place.
            on_progress: function that is called with the number of probes that are done.

        Returns:
            For each query a tensor [r, c] for each parameter, scaled like those of a corrected direction, or None
            where there is nothing; and the numbers of the probes that were restored. None if memory does not
            suffice.
        """

        def compute() -> tuple[list[list[Tensor | None]], list[int]]:
            weights = torch.from_numpy(coefficients * np.float32(probes.scale * self._layer_factor))
            sums, left_out = self._sums.of(probes.again, weights.to(self._engine.device), on_progress)
            found: list[list[Tensor | None]] = [
                [None if tensor is None else tensor[row] for tensor in sums] for row in range(len(coefficients))
            ]
            if left_out:
                vectors = coefficients[:, left_out] @ probes.sketched(left_out)[:, section]
                for tensors, vector in zip(found, vectors, strict=True):
                    for position, part in enumerate(self._restored(vector, self._no_norms()).tensors):
                        tensor = tensors[position]
                        if part is not None:
                            tensors[position] = part if tensor is None else tensor.add_(part.to(tensor.device))
            return found, left_out

        return unless_memory_runs_out(compute)

    def corrected_direction(
        self,
        query: NamedSample,
        objective: Objective,
        raw: NDArray[np.float32],
        vector: NDArray[np.float32],
        part: float = 1.0,
        taken: Sequence[Tensor | None] | None = None,
    ) -> Direction:
        """Make the direction of a query that was corrected by the curvature.

        The query's gradient is exact. What the correction takes away is exact if `taken_away` has computed it;
        else it is known in the space of the projection only, so it is restored from there. On a tiny model whose
        whole curvature is known, scores along the direction had a correlation with the true ones of .97 in the
        first case and .94 in the second, with 4,096 numbers for 125,000 parameters, and .90 if all of the
        direction was restored. If memory does not suffice for the gradient, all of it is restored.

        Args:
            query: the query.
            objective: objective of the query.
            raw: RapidGrad of the query before the correction, not normalised, times `part` [K].
            vector: corrected RapidGrad, times `part` [K].
            part: factor of the direction.
            taken: what the curvature takes away, times `part`, from `taken_away`; None: it is restored.

        Raises:
            GradientError: the gradient is zero or not finite.
            ComputationError: memory does not suffice even for the RapidGrad.
        """
        if self._elements * ELEMENT_BYTES <= self._free * _DIRECTION_SHARE:
            direction = unless_memory_runs_out(
                lambda: self._corrected(query, objective, self._away(raw, vector, taken), part)
            )
            if direction is not None:
                return direction
        logger.warning(
            "the query's gradient does not fit into memory: its RapidGrad takes its place, which takes longer and "
            "explains the estimates"
        )
        return self._restored(vector, self._no_norms())

    def corrected_token_direction(
        self,
        query: NamedSample,
        place: int,
        objective: Objective,
        raw: NDArray[np.float32],
        vector: NDArray[np.float32],
        whole: Direction,
        part: float = 1.0,
        taken: Sequence[Tensor | None] | None = None,
    ) -> Direction:
        """Make the part that one target token has in the direction of a corrected query.

        Args:
            query: the whole query.
            place: place of the token among the query's tokens.
            objective: objective of the query.
            raw: RapidGrad of the token's part before the correction, not normalised, times `part` [K].
            vector: corrected RapidGrad of the token's part, times `part` [K].
            whole: direction of the whole query.
            part: factor of the direction.
            taken: what the curvature takes away from the token's part, if it did so for the whole query, see
                `corrected_direction`.

        Raises:
            GradientError: the token's gradient is not finite.
            ComputationError: memory does not suffice.
        """
        if not whole.exact:
            return self._restored(vector, self._no_norms())
        share = part / sum(query.targets)
        prefix = Prefix(query, place, self._engine)
        direction = unless_memory_runs_out(
            lambda: self._corrected(prefix, objective, self._away(raw, vector, taken), share, True)
        )
        if direction is None:
            raise ComputationError(_NO_ROOM)
        return direction

    def _corrected(
        self,
        sample: NamedSample,
        objective: Objective,
        taken_away: Sequence[Tensor | None],
        part: float,
        zero: bool = False,
    ) -> Direction:
        """Make a direction from an exact gradient, times `part`, without what the curvature takes away."""
        tensors, _ = self._whole(sample, objective, zero)
        factor = part * self._layer_factor
        found: list[Tensor | None] = []
        for position, tensor in enumerate(tensors):
            away = taken_away[position]
            kept = None if tensor is None else tensor.mul_(factor)
            if away is not None:
                kept = -away if kept is None else kept.sub_(away)
            found.append(kept)
        return Direction(found, self._no_norms(), self._engine.normalise_layers)

    def _away(
        self, raw: NDArray[np.float32], vector: NDArray[np.float32], taken: Sequence[Tensor | None] | None
    ) -> Sequence[Tensor | None]:
        """Return what the curvature takes away: `taken`, or what is restored from RapidGrads before and after."""
        return self._restored(raw - vector, self._no_norms()).tensors if taken is None else taken

    def _no_norms(self) -> Tensor:
        """Return norms of 1, because a corrected query is not normalised."""
        return torch.ones(len(self._engine.names), dtype=torch.float64)

    def token_direction(self, query: NamedSample, place: int, whole: Direction, part: float = 1.0) -> Direction:
        """Compute the part that one target token has in a query's direction (Eq. 8).

        Args:
            query: the whole query.
            place: place of the token among the query's tokens.
            whole: direction of the whole query, whose norms stay.
            part: factor of the direction.

        Raises:
            GradientError: The token's gradient is not finite.
            ComputationError: Memory does not suffice.
        """
        compute = self._exact_token_direction if whole.exact else self._restored_token_direction
        direction = unless_memory_runs_out(lambda: compute(query, place, whole, part))
        if direction is None:
            raise ComputationError(_NO_ROOM)
        return direction

    def influences(
        self,
        samples: Sequence[TokenSample],
        direction: Direction,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[ExactInfluence | None]:
        """Compute the exact influences of samples, in their order; None where a gradient is not finite.

        Args:
            samples: any number of samples.
            direction: direction of the query.
            on_progress: function that is called with the number of samples that are done.
        """
        found: list[ExactInfluence | None] = [None] * len(samples)
        done = 0

        def compute(chosen: list[TokenSample]) -> list[ExactInfluence | None]:
            products, norms = self._aligner.aligned(chosen, direction)
            weights = direction.weights(norms, self._rounding)
            parts = products * weights
            usable = torch.isfinite(parts).all(dim=1).tolist()
            return [
                ExactInfluence(float(part.sum()), float(part.abs().sum()), weight) if finite else None
                for part, weight, finite in zip(parts, weights, usable, strict=True)
            ]

        def too_large(_: TokenSample) -> list[ExactInfluence | None]:
            return [None]

        for positions, batch in self._batches.run(samples, compute, too_large):
            for position, influence in zip(positions, batch, strict=True):
                found[position] = influence
            done += len(positions)
            if on_progress is not None:
                on_progress(done)
        return found

    def token_influences(self, sample: NamedSample, direction: Direction, exact: ExactInfluence) -> list[float]:
        """Compute the influence of each target token of a sample (Eq. 6); they add up to the sample's influence.

        Args:
            sample: the sample.
            direction: direction of the query.
            exact: influence of the sample on the query.

        Raises:
            ComputationError: The tokens do not fit into memory even one by one.
        """
        return self._values.of(sample, direction, exact.weights, exact.score, exact.size).tolist()

    def matrix(
        self, sample: NamedSample, directions: Sequence[Direction], exact: ExactInfluence
    ) -> list[list[float]]:
        """Compute the influence of each target token of a sample on each of a generation (Eq. 8), [g][s].

        Args:
            sample: the sample; its `token_influences` were computed before, so that the way is known to be right.
            directions: directions of target tokens of the generation, from `token_direction`, at most
                `directions_together`.
            exact: influence of the sample on the whole query.
        """
        return self._values.of_many(sample, directions, exact.weights).tolist()

    def _exact_direction(self, query: NamedSample, part: float) -> Direction:
        tensors, norms = self._whole(query, self._engine.objective)
        return direction_of(tensors, norms, self._engine.normalise_layers, self._rounding, part)

    def _exact_token_direction(self, query: NamedSample, place: int, whole: Direction, part: float) -> Direction:
        # The gradient of a token that the model is certain of may be zero, which is an answer.
        tensors, _ = self._whole(Prefix(query, place, self._engine), self._engine.objective, zero=True)
        share = part / sum(query.targets)
        return direction_of(tensors, whole.norms, whole.normalise_layers, self._rounding, share)

    def _restored_direction(self, query: NamedSample, part: float) -> Direction:
        batch = self._engine.compute([query])
        if batch.problems:
            raise GradientError(query.id, f"{batch.problems[0]}; ask about another generation", "query")
        return self._restored(batch.vectors[0] * np.float32(part), self._engine.norms(query))

    def _restored_token_direction(
        self, query: NamedSample, place: int, whole: Direction, part: float
    ) -> Direction:
        norms = whole.norms if whole.normalise_layers else None
        vector = self._engine.compute_with_norms([Prefix(query, place, self._engine)], norms)[0]
        return self._restored(vector * (part / sum(query.targets)), whole.norms)

    def _restored(self, vector: NDArray[np.float32], norms: Tensor) -> Direction:
        """Make the direction that a query's RapidGrad [K] stands for, given norms from `RapidGradEngine.norms`."""
        factor = self._layer_factor

        def restore(position: int) -> Tensor:
            shape = self._engine.shapes[position]
            return self._engine.restored(vector, position, as_matrix(shape)).mul_(factor).to(self._engine.device)

        return Direction(
            RestoredTensors(restore, len(self._engine.names)), norms, self._engine.normalise_layers, exact=False
        )

    @property
    def _layer_factor(self) -> float:
        """The factor by which a RapidGrad's tensors are smaller than the gradient's."""
        return 1 / math.sqrt(len(self._engine.names)) if self._engine.normalise_layers else 1.0

    def _whole(
        self, sample: NamedSample, objective: Objective, zero: bool = False
    ) -> tuple[list[Tensor | None], Tensor]:
        """Compute a sample's gradient by parameter, and its tensors' norms, float64 [L]."""
        tensors, norms = whole_gradient(self._engine, sample, objective)
        if not torch.isfinite(norms).all() or not (zero or norms.any()):
            raise GradientError(
                sample.id, "its gradient is zero or not finite; ask about another generation", "query"
            )
        return tensors, norms

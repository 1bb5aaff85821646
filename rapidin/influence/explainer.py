"""Exact influences: of samples on a generation (Eq. 5), of their tokens (Eq. 6), and token on token (Eq. 8).

Equations are those of Lin et al. 2024 (arXiv 2405.11724). Every value is computed from the gradients themselves,
nothing is projected. Values of a finer level add up to those of the coarser one.

1. One forward and backward pass for the query: its `Direction`.
2. One for each batch of samples: products with the direction and norms, which give the exact influences.
3. One pass in forward mode for each sample that is to be explained: values of its tokens. Their sum is compared
   with the exact influence; where a model has no forward mode, or a wrong one, slower ways are taken.

Shape letters: b batch · L parameter tensors · g targets of the generation · s targets of the sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rapidin.errors import ComputationError, GradientError
from rapidin.gradients.batches import TokenBudget, in_batches
from rapidin.gradients.engine import TokenSample
from rapidin.gradients.rapidgrad import RapidGradEngine
from rapidin.influence.alignments import Alignments
from rapidin.influence.directions import (
    ROUNDING,
    ROUNDING_LOW,
    Direction,
    WholeGradients,
    direction_of,
)
from rapidin.influence.forward_mode import STEPS, central_difference, forward_mode
from rapidin.influence.prefixes import Prefix, target_places
from rapidin.memory import WorkingMemory

logger = logging.getLogger(__name__)

FORWARD = "forward mode"
DIFFERENCES = "central differences"
BACKWARD = "one backward pass per token"
_WAYS = (FORWARD, DIFFERENCES, BACKWARD)
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far the sum of token values may be from the exact influence, in the sum of their absolute values."""
_TOLERANCE_LOW = 0.1


@dataclass(frozen=True, slots=True)
class ExactInfluence:
    """A sample's exact influence on a generation.

    Attributes:
        score: the influence.
        weights: what the product with each tensor of the direction counts, float64 [L].
    """

    score: float
    weights: Tensor


class Explainer:
    """Computes exact influences with the model of a RapidGrad engine.

    Args:
        model: the engine's model.
        engine: of the store.
        budget: of the batches; halved where memory runs out.

    Attributes:
        way: how the influences of tokens are computed: the first of `FORWARD`, `DIFFERENCES` and `BACKWARD` that
            has not failed on this model.
    """

    def __init__(self, model: nn.Module, engine: RapidGradEngine, budget: TokenBudget) -> None:
        self._model = model
        self._engine = engine
        self._budget = budget
        self._memory = WorkingMemory()
        dtype = engine.precision
        self._rounding = ROUNDING.get(dtype, ROUNDING_LOW)
        self._tolerance = _TOLERANCE.get(dtype, _TOLERANCE_LOW)
        self._step = STEPS[0]
        self.way = FORWARD

    def direction(self, query: TokenSample) -> Direction:
        """The gradient of a query's mean loss.

        Raises:
            GradientError: it is zero or not finite.
        """
        tensors, norms = self._whole(query)
        return direction_of(tensors, norms, self._engine.layer_norm, self._rounding)

    def token_direction(self, query: TokenSample, place: int, whole: Direction) -> Direction:
        """The part that one target token has in a query's direction (Eq. 8).

        Args:
            query: all of it.
            place: of the token among the query's.
            whole: the query's direction, whose norms stay.
        """
        tensors, _ = self._whole(Prefix(query, place))
        part = 1 / sum(query.targets)
        return direction_of(tensors, whole.norms, whole.layer_norm, self._rounding, part)

    def influences(
        self,
        samples: Sequence[TokenSample],
        direction: Direction,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[ExactInfluence | None]:
        """Exact influences of samples, in their order; None where a gradient is not finite.

        Args:
            samples: any number of them.
            direction: of the query.
            on_progress: told how many samples are done.
        """
        found: list[ExactInfluence | None] = [None] * len(samples)
        done = 0

        def compute(chosen: list[TokenSample]) -> list[ExactInfluence | None]:
            sums, factors = self._engine.accumulate(chosen, lambda b: Alignments(b, direction, self._memory))
            factors = factors.double().cpu()[:, None]
            weights = direction.weights(sums[:, :, 1].sqrt() * factors, self._rounding)
            scores = (sums[:, :, 0] * factors * weights).sum(dim=1)
            usable = torch.isfinite(scores).tolist()
            return [
                ExactInfluence(float(score), weight) if finite else None
                for score, weight, finite in zip(scores, weights, usable, strict=True)
            ]

        def too_large(_: int) -> list[ExactInfluence | None]:
            return [None]

        for positions, batch in in_batches(samples, self._budget, compute, too_large):
            for position, influence in zip(positions, batch, strict=True):
                found[position] = influence
            done += len(positions)
            if on_progress is not None:
                on_progress(done)
        return found

    def token_influences(self, sample: TokenSample, direction: Direction, exact: ExactInfluence) -> list[float]:
        """Influence of each target token of a sample (Eq. 6); they add up to its influence.

        Args:
            sample: the sample.
            direction: of the query.
            exact: of the sample and the query.
        """
        while True:
            values = self._tried(sample, direction, exact.weights, exact.score)
            if values is not None:
                error = abs(float(values.sum()) - exact.score)
                if error <= self._tolerance * max(float(values.abs().sum()), abs(exact.score)) or (
                    self.way == BACKWARD
                ):
                    return values.tolist()
                logger.info("%s: the values of tokens do not add up, by %.2g", self.way, error)
            self.way = _WAYS[_WAYS.index(self.way) + 1]
            logger.info("influences of tokens are computed by %s", self.way)

    def matrix(
        self, sample: TokenSample, directions: Sequence[Direction], exact: ExactInfluence
    ) -> list[list[float]]:
        """Influence of each target token of a sample on each of a generation (Eq. 8), [g][s].

        Args:
            sample: the sample; its `token_influences` were computed before, so that the way is known to be right.
            directions: of `token_direction`, for each target token of the generation.
            exact: of the sample and the whole query.
        """
        rows = []
        for direction in directions:
            values = self._tried(sample, direction, exact.weights, None)
            if values is None:
                self.way = BACKWARD
                values = self._one_by_one(sample, direction, exact.weights)
            rows.append(values.tolist())
        return rows

    def _tried(
        self, sample: TokenSample, direction: Direction, weights: Tensor, total: float | None
    ) -> Tensor | None:
        """Values of the target tokens by the present way, float64 [s]; None where the model does not allow it."""
        if self.way == BACKWARD:
            return self._one_by_one(sample, direction, weights)
        tangents = self._tangents(direction, weights)
        part = 1 / sum(sample.targets)
        try:
            if self.way == FORWARD:
                return forward_mode(self._model, sample, tangents) * part
            if total is None:
                return central_difference(self._model, sample, tangents, self._step) * part
            return self._best_difference(sample, tangents, total / part) * part
        except (NotImplementedError, RuntimeError) as reason:
            if isinstance(reason, torch.OutOfMemoryError):
                raise
            logger.info("%s: %s", self.way, " ".join(str(reason).split())[:200])
            return None

    def _best_difference(self, sample: TokenSample, tangents: dict[str, Tensor], total: float) -> Tensor:
        """Derivatives with the step whose sum is nearest to `total`, which is kept for what has no known sum."""
        found = {step: central_difference(self._model, sample, tangents, step) for step in STEPS}
        self._step = min(found, key=lambda step: abs(float(found[step].sum()) - total))
        return found[self._step]

    def _one_by_one(self, sample: TokenSample, direction: Direction, weights: Tensor) -> Tensor:
        """Values of the target tokens by a backward pass for each, float64 [s]."""
        places = target_places(sample)
        values = torch.zeros(len(places), dtype=torch.float64)

        def compute(chosen: list[TokenSample]) -> Tensor:
            sums, factors = self._engine.accumulate(chosen, lambda b: Alignments(b, direction, self._memory))
            return (sums[:, :, 0] * weights).sum(dim=1) * factors.double().cpu()

        def too_large(tokens: int) -> Tensor:
            raise ComputationError(
                f"{tokens} tokens do not fit into memory; give a smaller --rerank or --device cpu"
            )

        prefixes = [Prefix(sample, place) for place in places]
        for positions, batch in in_batches(prefixes, self._budget, compute, too_large):
            values[positions] = batch
        return values / len(places)

    def _tangents(self, direction: Direction, weights: Tensor) -> dict[str, Tensor]:
        """The direction that a sample's token losses are differentiated along, by parameter name."""
        parameters = dict(self._model.named_parameters())
        tangents = {}
        for name, tensor, weight in zip(self._engine.names, direction.tensors, weights.tolist(), strict=True):
            if tensor is not None and weight:
                parameter = parameters[name]
                tangents[name] = (tensor * weight).to(parameter.dtype).view(parameter.shape)
        return tangents

    def _whole(self, sample: TokenSample) -> tuple[list[Tensor | None], Tensor]:
        """A sample's gradient by parameter, and its tensors' norms, float64 [L]."""
        kept: list[WholeGradients] = []

        def new(batch: int) -> WholeGradients:
            kept.append(WholeGradients(batch, len(self._engine.names)))
            return kept[-1]

        norms, factors = self._engine.accumulate([sample], new, plainly=True)
        factor = float(factors[0])
        if not torch.isfinite(norms).all() or not norms.any():
            raise GradientError("query", "its gradient is zero or not finite; ask otherwise")
        tensors = kept[-1].tensors
        if factor != 1:
            tensors = [None if tensor is None else tensor.mul_(factor) for tensor in tensors]
        return tensors, norms[0] * factor

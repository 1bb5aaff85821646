"""Values of a sample's target tokens along a direction, by the fastest way that the model allows.

`FORWARD` and `DIFFERENCES` are the two ways of `forward_mode`; `BACKWARD` takes a backward pass for each token,
which always works. The sum of the values is compared with the sample's influence, if that is known. If a way
fails, or its values do not add up, the next way is taken for this sample. If that happens to three samples in
succession, the next way is taken for all further samples.

Shape letters: s targets of the sample · L parameter tensors.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import NamedSample
from rapidin.attribution.influence.alignments import Aligner
from rapidin.attribution.influence.directions import Direction, norm_of
from rapidin.attribution.influence.forward_mode import (
    STEPS,
    central_difference,
    forward_mode,
    forward_mode_of_many,
)
from rapidin.attribution.influence.prefixes import Prefix, target_places
from rapidin.attribution.rapidgrads import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.errors import ComputationError
from rapidin.support import release_cached_memory

logger = logging.getLogger(__name__)

FORWARD = "forward mode"
DIFFERENCES = "central differences"
BACKWARD = "one backward pass per token"
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest distance of the sum of token values from the influence, relative to the sum of absolute values."""
_TOLERANCE_LOW = 0.1
_MOST_FAILURES = 3
"""Number of samples in succession after whose failure a way is given up."""
_MOST_DISAGREEMENT = 0.05
"""Largest disagreement between central differences with two steps, relative to their own norm."""
ELEMENT_BYTES = 4
_MOST_TOGETHER = 16
"""Maximum number of directions that share a forward pass; more would save little."""


class TokenValues:
    """Computes values of tokens with the model of a RapidGrad engine.

    Args:
        model: the engine's model.
        engine: engine of the store.
        aligner: products of the engine's gradients with directions.
        budget: budget that the batches begin with.
        most: maximum size, in bytes, of the part of a direction that a sample is differentiated along at a time.
        way: first way to try.

    Attributes:
        way: the first of `FORWARD`, `DIFFERENCES` and `BACKWARD` that was not given up.
    """

    def __init__(
        self,
        model: nn.Module,
        engine: RapidGradEngine,
        aligner: Aligner,
        budget: TokenBudget,
        most: float,
        way: str = FORWARD,
    ) -> None:
        self._model = model
        self._engine = engine
        self._batches = BatchRunner(engine, budget)
        self._most = most
        self._aligner = aligner
        self._tolerance = _TOLERANCE.get(engine.precision, _TOLERANCE_LOW)
        types = {model.get_parameter(name).dtype for name in engine.names}
        self._movable = (types | {engine.precision}) <= _TOLERANCE.keys()
        self._step = STEPS[0]
        self._apart = False
        self._failures = 0
        self.way = way

    def of(
        self,
        sample: NamedSample,
        direction: Direction,
        weights: Tensor,
        total: float | None,
        size: float = 0.0,
    ) -> Tensor:
        """Compute the values of the target tokens, float64 [s].

        Args:
            sample: the sample.
            direction: direction along which the sample's losses are differentiated.
            weights: weight of the product with each of the direction's tensors, float64 [L].
            total: sum that the values must have; None if it is unknown.
            size: sum of the absolute values of the parts that make up `total`, which bounds its rounding error.

        Raises:
            ComputationError: The sample's tokens do not fit into memory even one by one.
        """
        way = self.way
        while True:
            values = self._tried(way, sample, direction, weights, total)
            if values is not None:
                error = 0.0 if total is None else abs(float(values.sum()) - total)
                if way == BACKWARD or error <= self._tolerance * max(float(values.abs().sum()), size):
                    self._failures = 0 if way == self.way else self._failures
                    return values
                logger.info("%s: the values of tokens do not add up, by %.2g", way, error)
            way = self._next_way(way)
            # One sample may be an exception; if several fail in succession, the model does not allow this way.
            self._failures += 1
            if self._failures == _MOST_FAILURES:
                self.way, self._failures = way, 0
                logger.info("influences of tokens are computed by %s from now on", way)

    def _next_way(self, way: str) -> str:
        """Choose the way after one that failed; in half precision rounding would hide the small differences."""
        return DIFFERENCES if way == FORWARD and self._movable else BACKWARD

    def of_many(self, sample: NamedSample, directions: Sequence[Direction], weights: Tensor) -> Tensor:
        """Compute the values of the target tokens along several directions, float64 [d, s].

        Args:
            sample: the sample; `of` was called with it before, so that the way is known to be right.
            directions: the d directions, at most `together`.
            weights: weight of the product with each tensor of the directions, float64 [L].
        """
        if self.way == FORWARD and len(directions) > 1 and not self._apart:
            try:
                return self._together(sample, directions, weights)
            except (NotImplementedError, RuntimeError, MemoryError) as reason:
                logger.info("one direction at a time: %s", " ".join(str(reason).split())[:200])
                self._apart = True
            release_cached_memory()
        return torch.stack([self.of(sample, direction, weights, None) for direction in directions])

    @property
    def together(self) -> int:
        """Number of tokens' directions that fit into memory together with the tangents that are made of them."""
        size = sum(math.prod(shape) for shape in self._engine.shapes) * ELEMENT_BYTES
        return int(max(1, min(_MOST_TOGETHER, self._most // (2 * size))))

    def _tried(
        self, way: str, sample: NamedSample, direction: Direction, weights: Tensor, total: float | None
    ) -> Tensor | None:
        """Compute the target tokens' values by one way, float64 [s]; None if model or memory do not allow it."""
        if way == BACKWARD:
            return self._one_by_one(sample, direction, weights)
        part = 1 / sum(sample.targets)
        try:
            if way == FORWARD:
                # Derivatives along the parts of a direction add up to that along all of it.
                parts = self._tangents(direction, weights, self._most)
                derivatives = [
                    forward_mode(self._model, sample, tangents, self._engine.objective) for tangents in parts
                ]
                return torch.stack(derivatives).sum(dim=0) * part
            (tangents,) = self._tangents(direction, weights, math.inf)
            if total is None:
                return self._difference(sample, tangents, self._step) * part
            found = self._best_difference(sample, tangents, total / part)
            return None if found is None else found * part
        except (NotImplementedError, RuntimeError, MemoryError) as reason:
            logger.info("%s: %s", way, " ".join(str(reason).split())[:200])
        release_cached_memory()
        return None

    def _best_difference(self, sample: NamedSample, tangents: dict[str, Tensor], total: float) -> Tensor | None:
        """Compute the derivatives with the step whose sum is nearest to `total`.

        The step is kept for samples without a known sum. The result is None if no other step gives nearly the same
        derivatives, because then they are rounding errors.
        """
        found = {step: self._difference(sample, tangents, step) for step in STEPS}
        best, *others = sorted(STEPS, key=lambda step: abs(float(found[step].sum()) - total))
        nearest = min(norm_of(found[best] - found[step]) for step in others)
        if nearest > _MOST_DISAGREEMENT * norm_of(found[best]):
            return None
        self._step = best
        return found[best]

    def _difference(self, sample: NamedSample, tangents: dict[str, Tensor], step: float) -> Tensor:
        return central_difference(self._model, sample, tangents, step, self._engine.objective)

    def _one_by_one(self, sample: NamedSample, direction: Direction, weights: Tensor) -> Tensor:
        """Compute the values of the target tokens by a backward pass for each, float64 [s]."""
        places = target_places(sample)
        values = torch.zeros(len(places), dtype=torch.float64)

        def compute(chosen: list[Prefix]) -> Tensor:
            products, _ = self._aligner.aligned(chosen, direction)
            return (products * weights).sum(dim=1)

        def too_large(prefix: Prefix) -> Tensor:
            raise ComputationError(
                f"sample {sample.id!r}: {len(prefix.ids)} tokens do not fit into memory; give a smaller "
                "--rerank or --device cpu"
            )

        prefixes = [Prefix(sample, place, self._engine) for place in places]
        for positions, batch in self._batches.run(prefixes, compute, too_large):
            values[positions] = batch
        return values / len(places)

    def _tangents(self, direction: Direction, weights: Tensor, most: float) -> Iterator[dict[str, Tensor]]:
        """Give the direction that a sample's token losses are differentiated along, by parameter name.

        It comes in parts of at most `most` bytes, unless a single tensor has more; there is at least one part.
        """
        tangents: dict[str, Tensor] = {}
        size = 0
        for position, (name, weight) in enumerate(zip(self._engine.names, weights.tolist(), strict=True)):
            tensor = direction.tensors[position] if weight else None
            if tensor is None:
                continue
            if tangents and size + tensor.numel() * ELEMENT_BYTES > most:
                yield tangents
                tangents, size = {}, 0
            tangents[name] = self._tangent(name, tensor, weight)
            size += tensor.numel() * ELEMENT_BYTES
        yield tangents

    def _together(self, sample: NamedSample, directions: Sequence[Direction], weights: Tensor) -> Tensor:
        """Compute the target tokens' values along d directions in one pass in forward mode, float64 [d, s]."""
        tangents = self._stacked_tangents(directions, weights)
        if not tangents:
            return torch.zeros(len(directions), sum(sample.targets), dtype=torch.float64)
        derivatives = forward_mode_of_many(self._model, sample, tangents, self._engine.objective)
        return derivatives / sum(sample.targets)

    def _stacked_tangents(self, directions: Sequence[Direction], weights: Tensor) -> dict[str, Tensor]:
        """Stack the tangents of d directions, [d, …], by parameter name; one that a direction lacks is zero."""
        stacked: dict[str, Tensor] = {}
        for position, (name, weight) in enumerate(zip(self._engine.names, weights.tolist(), strict=True)):
            if not weight:
                continue
            for number, direction in enumerate(directions):
                tensor = direction.tensors[position]
                if tensor is None:
                    continue
                tangent = self._tangent(name, tensor, weight)
                if name not in stacked:
                    stacked[name] = tangent.new_zeros(len(directions), *tangent.shape)
                stacked[name][number] = tangent
        return stacked

    def _tangent(self, name: str, tensor: Tensor, weight: float) -> Tensor:
        """Multiply a direction's tensor with its weight, in the parameter's shape and type and on its device."""
        parameter = self._model.get_parameter(name)
        return (tensor * weight).to(parameter.device, parameter.dtype).view(parameter.shape)

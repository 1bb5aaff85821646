"""Values of a sample's target tokens along a direction, by the fastest way that the model allows.

`FORWARD` and `DIFFERENCES` are those of `forward_mode`; `BACKWARD` takes a backward pass for each token, which
always works. The values' sum is compared with the sample's influence, where that is known; a way that fails, or
whose values do not add up, is not tried again.

Shape letters: s targets of the sample · L parameter tensors.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rapidin.errors import ComputationError
from rapidin.gradients.batches import TokenBudget, in_batches
from rapidin.gradients.engine import TokenSample, is_out_of_memory
from rapidin.gradients.rapidgrad import RapidGradEngine
from rapidin.influence.alignments import Alignments
from rapidin.influence.directions import Direction
from rapidin.influence.forward_mode import STEPS, central_difference, forward_mode, forward_mode_of_many
from rapidin.influence.prefixes import Prefix, target_places
from rapidin.memory import WorkingMemory

logger = logging.getLogger(__name__)

FORWARD = "forward mode"
DIFFERENCES = "central differences"
BACKWARD = "one backward pass per token"
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far the sum of token values may be from the exact influence, in the sum of their absolute values."""
_TOLERANCE_LOW = 0.1
ELEMENT_BYTES = 4
_MOST_TOGETHER = 16
"""Directions that share a forward pass; with more, little is left to be saved."""


class TokenValues:
    """Computes values of tokens with the model of a RapidGrad engine.

    Args:
        model: the engine's model.
        engine: of the store.
        budget: of batches; halved where memory runs out.
        most: bytes of a direction that a sample is differentiated along at a time.

    Attributes:
        way: the first of `FORWARD`, `DIFFERENCES` and `BACKWARD` that has not failed on this model.
    """

    def __init__(self, model: nn.Module, engine: RapidGradEngine, budget: TokenBudget, most: float) -> None:
        self._model = model
        self._engine = engine
        self._budget = budget
        self._most = most
        self._memory = WorkingMemory()
        self._tolerance = _TOLERANCE.get(engine.precision, _TOLERANCE_LOW)
        self._step = STEPS[0]
        self._apart = False
        self.way = FORWARD

    def of(self, sample: TokenSample, direction: Direction, weights: Tensor, total: float | None) -> Tensor:
        """Values of the target tokens, float64 [s].

        Args:
            sample: the sample.
            direction: along which its losses are differentiated.
            weights: what the product with each of the direction's tensors counts, float64 [L].
            total: what the values must add up to; None where that is unknown.
        """
        while True:
            values = self._tried(sample, direction, weights, total)
            if values is not None:
                error = 0.0 if total is None else abs(float(values.sum()) - total)
                if error <= self._tolerance * float(values.abs().sum()) or self.way == BACKWARD:
                    return values
                logger.info("%s: the values of tokens do not add up, by %.2g", self.way, error)
            self.way = self._next_way()
            logger.info("influences of tokens are computed by %s", self.way)

    def _next_way(self) -> str:
        """What to do instead of the present way; parameters in half precision cannot be moved by small steps."""
        types = {self._model.get_parameter(name).dtype for name in self._engine.names}
        movable = types <= _TOLERANCE.keys()
        return DIFFERENCES if self.way == FORWARD and movable else BACKWARD

    def of_many(self, sample: TokenSample, directions: Sequence[Direction], weights: Tensor) -> Tensor:
        """Values of the target tokens along several directions, float64 [d, s].

        Args:
            sample: the sample; `of` was asked about it before, so that the way is known to be right.
            directions: d of them, few enough for `together`.
            weights: as of `of`.
        """
        if self.way == FORWARD and len(directions) > 1 and not self._apart:
            stacked = {}
            for position, (name, weight) in enumerate(zip(self._engine.names, weights.tolist(), strict=True)):
                parts = [direction.tensors[position] for direction in directions]
                if weight and parts[0] is not None:
                    parameter = self._model.get_parameter(name)
                    tangent = torch.stack([part for part in parts if part is not None]).mul_(weight)
                    tangent = tangent.to(parameter.device, parameter.dtype)
                    stacked[name] = tangent.view(len(directions), *parameter.shape)
            try:
                return forward_mode_of_many(self._model, sample, stacked) / sum(sample.targets)
            except (NotImplementedError, RuntimeError) as reason:
                logger.info("one direction at a time: %s", " ".join(str(reason).split())[:200])
                self._apart = True
        return torch.stack([self.of(sample, direction, weights, None) for direction in directions])

    @property
    def together(self) -> int:
        """How many directions of a token fit into memory beside what is made of them."""
        size = sum(math.prod(shape) for shape in self._engine.shapes) * ELEMENT_BYTES
        return int(max(1, min(_MOST_TOGETHER, self._most // (2 * size))))

    def _tried(
        self, sample: TokenSample, direction: Direction, weights: Tensor, total: float | None
    ) -> Tensor | None:
        """Values of the target tokens by the present way, float64 [s]; None where the model does not allow it."""
        if self.way == BACKWARD:
            return self._one_by_one(sample, direction, weights)
        part = 1 / sum(sample.targets)
        try:
            if self.way == FORWARD:
                # Derivatives along the parts of a direction add up to that along all of it.
                parts = self._tangents(direction, weights, self._most)
                derivatives = [forward_mode(self._model, sample, tangents) for tangents in parts]
                return torch.stack(derivatives).sum(dim=0) * part
            (tangents,) = self._tangents(direction, weights, math.inf)
            if total is None:
                return central_difference(self._model, sample, tangents, self._step) * part
            return self._best_difference(sample, tangents, total / part) * part
        except (NotImplementedError, RuntimeError) as reason:
            if is_out_of_memory(reason):
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

    def _tangents(self, direction: Direction, weights: Tensor, most: float) -> Iterator[dict[str, Tensor]]:
        """The direction that a sample's token losses are differentiated along, by parameter name.

        It comes in parts of at most so many bytes, unless a single tensor has more; one of them at least.
        """
        parameters = dict(self._model.named_parameters())
        tangents: dict[str, Tensor] = {}
        size = 0
        for position, (name, weight) in enumerate(zip(self._engine.names, weights.tolist(), strict=True)):
            tensor = direction.tensors[position] if weight else None
            if tensor is None:
                continue
            parameter = parameters[name]
            if tangents and size + parameter.numel() * ELEMENT_BYTES > most:
                yield tangents
                tangents, size = {}, 0
            tangents[name] = (tensor * weight).to(parameter.device, parameter.dtype).view(parameter.shape)
            size += parameter.numel() * ELEMENT_BYTES
        yield tangents

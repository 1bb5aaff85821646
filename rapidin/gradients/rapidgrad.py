"""RapidGrads: per-sample gradients, normalised layer by layer and projected to K numbers.

Shape letters: b batch · r rows · c columns · n chunks · K projection dimension · L layers (parameter tensors).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.gradients.contributions import as_matrix
from rapidin.gradients.engine import Accumulator, GradientEngine, TokenSample
from rapidin.gradients.factored import FactoredSketches
from rapidin.gradients.shuffled import ShuffledSketches
from rapidin.projection import FactoredProjection, ShuffledProjection
from rapidin.settings import ProjectionSettings, TracedParameter

_TOKEN_WEIGHTS = (64.0, 1.0, 1 / 1024)
"""Scales of a token's loss in half precision, whose numbers lie between 6e-8 and 65,504: tried in this order.

At the first the gradient of a logit is at most 64, and 1e-9 of that is still above zero.
"""


@dataclass(frozen=True, slots=True)
class RapidGradBatch:
    """RapidGrads of some samples.

    Attributes:
        vectors: float32 [b, K]; rows named in `problems` are meaningless.
        problems: position of a sample → what is wrong with its gradient.
    """

    vectors: NDArray[np.float32]
    problems: dict[int, str]


class RapidGradEngine:
    """Computes RapidGrads of token samples for one model and one projection.

    Args:
        model: a causal language model in evaluation mode; held until `close`.
        parameters: the traced parameter tensors, in the order of the flattened gradient.
        settings: of normalisation and projection.

    Raises:
        ModelError: a traced parameter does not exist in the model.
        SettingError: K is larger than the number of traced parameters.

    Attributes:
        device: where the model's first layer is.
    """

    def __init__(
        self, model: nn.Module, parameters: Sequence[TracedParameter], settings: ProjectionSettings
    ) -> None:
        self._projection = make_projection(settings, parameters)
        self._layer_norm = settings.layer_norm
        self._layers = len(parameters)
        self._engine = GradientEngine(model, [parameter.name for parameter in parameters])
        self.device = self._engine.device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()

    def compute(self, samples: Sequence[TokenSample]) -> RapidGradBatch:
        """Compute the RapidGrad of every sample.

        With layer-wise normalisation each is scaled by 1/√L, so that the inner product of two of them estimates
        the mean over layers of the cosine between the two gradients.
        """
        vectors = self._in_half_precision(samples) if self._engine.half else self._accumulate(samples)
        if self._layer_norm:
            vectors = vectors / math.sqrt(self._layers)
        finite = torch.isfinite(vectors).all(dim=1)
        nonzero = (vectors != 0).any(dim=1)
        problems: dict[int, str] = {}
        for position in torch.nonzero(~(finite & nonzero)).flatten().tolist():
            problems[position] = f"its gradient is {'zero' if finite[position] else 'not finite'}"
            if self._engine.half:
                problems[position] += " in half precision, which --dtype bfloat16 or float32 may cure"
        return RapidGradBatch(vectors.numpy(), problems)

    def too_large(self, tokens: int) -> RapidGradBatch:
        """Make the result for a single sample of so many tokens that memory did not suffice for."""
        problem = (
            f"its {tokens} tokens do not fit into memory even alone: lower --max-length, or give another --device "
            "or a smaller --dtype"
        )
        return RapidGradBatch(np.zeros((1, self._projection.dimension), dtype=np.float32), {0: problem})

    def _accumulate(self, samples: Sequence[TokenSample], token_weight: float | None = None) -> Tensor:
        vectors = self._engine.accumulate(samples, self._new_accumulator, token_weight)
        if token_weight is not None and not self._layer_norm:
            targets = torch.tensor([sum(sample.targets) for sample in samples])
            vectors /= (targets * token_weight).unsqueeze(1)
        return vectors

    def _in_half_precision(self, samples: Sequence[TokenSample]) -> Tensor:
        """Compute with the largest scale of the loss at which a sample's gradient does not overflow.

        Every batch begins anew at the largest, so that a sample's result does not depend on those before it.
        """
        first, *others = _TOKEN_WEIGHTS
        vectors = self._accumulate(samples, first)
        for weight in others:
            overflown = torch.nonzero(~torch.isfinite(vectors).all(dim=1)).flatten()
            if not len(overflown):
                break
            vectors[overflown] = self._accumulate([samples[position] for position in overflown], weight)
        return vectors

    def _new_accumulator(self, batch: int) -> Accumulator:
        if isinstance(self._projection, FactoredProjection):
            return FactoredSketches(batch, self._projection, self._layer_norm)
        return ShuffledSketches(batch, self._projection, self._layer_norm)


def make_projection(
    settings: ProjectionSettings, parameters: Sequence[TracedParameter]
) -> FactoredProjection | ShuffledProjection:
    """Make a store's map.

    Raises:
        SettingError: K does not fit the parameters.
    """
    shapes = [parameter.shape for parameter in parameters]
    if settings.kind == "factored":
        return FactoredProjection(settings, [as_matrix(shape) for shape in shapes])
    return ShuffledProjection(settings, shapes)

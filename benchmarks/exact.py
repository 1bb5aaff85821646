"""Exact layer-normalised gradients and their inner products, without any of rapidin's gradient or projection code.

One sample at a time, plain autograd, every parameter tensor's gradient divided by its norm. Slow and obvious.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rapidin.attribution.gradients import TokenSample
from rapidin.model.loading import LoadedModel

_ROWS_AT_ONCE = 32


class ExactGradients:
    """Gradients of single samples.

    Args:
        loaded: the model; its traced parameters are differentiated.

    Attributes:
        shapes: of the parameter tensors.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model
        parameters = dict(loaded.model.named_parameters())
        self._traced = [parameters[parameter.name] for parameter in loaded.parameters]
        self.shapes = [tuple(parameter.shape) for parameter in self._traced]

    def parts(self, sample: TokenSample) -> list[Tensor]:
        """Compute a sample's gradient, float32: a part for each parameter tensor, of norm 1/√L (or zero)."""
        ids = torch.tensor([sample.ids])
        labels = ids.masked_fill(~torch.tensor([sample.targets]), -100)
        logits = self._model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten())
        parts = torch.autograd.grad(loss, self._traced, allow_unused=True)
        return [
            torch.zeros(shape) if part is None else _normalised(part.float()) / math.sqrt(len(parts))
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def flat(self, sample: TokenSample) -> Tensor:
        """Compute a sample's gradient as one vector, float32 [p]."""
        return flattened(self.parts(sample))


def flattened(parts: Iterable[Tensor]) -> Tensor:
    """Join the parts of a gradient to one vector."""
    return torch.cat([part.flatten() for part in parts])


def exact_scores(
    gradients: ExactGradients, queries: Iterable[TokenSample], samples: Iterable[TokenSample]
) -> np.ndarray:
    """Mean over parameter tensors of the cosines between gradients, float64 [queries, samples]."""
    matrix = torch.stack([gradients.flat(query) for query in queries])
    columns = []
    rest = iter(samples)
    while some := list(islice(rest, _ROWS_AT_ONCE)):  # one pass over the queries' gradients for many samples
        columns.append(matrix @ torch.stack([gradients.flat(sample) for sample in some]).T)
    return torch.cat(columns, dim=1).double().numpy()


def _normalised(part: Tensor) -> Tensor:
    norm: Tensor = part.norm()
    return part / norm.clamp_min(1e-30)

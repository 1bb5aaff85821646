"""A query's whole gradient as a direction in the space of parameters.

With layer-wise normalisation the influence of a sample is the mean over the L parameter tensors of the cosine
between its gradient s_l and the query's q_l. The direction holds u_l = q_l / (‖q_l‖·L), so that the influence is
Σ_l ⟨u_l, s_l⟩ / ‖s_l‖; without it u_l = q_l, and the influence is Σ_l ⟨u_l, s_l⟩.

A tensor whose gradient is zero in exact arithmetic (a key's bias, which shifts all of a token's attention scores
alike) holds nothing but rounding errors. A cosine with those is meaningless, so such a tensor is left out.

Shape letters: b batch · L parameter tensors · r rows · c columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from rapidin.attribution.gradients import Differentiated, ParameterGradient, TokenSample
from rapidin.attribution.rapidgrads import RapidGradEngine

ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-7}
"""Norm of a tensor's gradient, as a share of the largest, up to which it holds rounding errors only."""
ROUNDING_LOW = 1e-4
"""Value that takes the place of `ROUNDING` for a model that computes in half precision."""


@dataclass(frozen=True, slots=True)
class Direction:
    """A query's gradient.

    Attributes:
        tensors: tensor u_l for each parameter's position, float32 [r, c] on the parameter's device; None if the
            tensor is left out.
        norms: norms ‖q_l‖ of the query's mean loss, float64 [L]; the projection's norms if the direction is not
            exact.
        normalise_layers: whether the tensors are normalised.
        exact: whether the tensors are those of the gradient itself, rather than restored from the RapidGrad.
    """

    tensors: Sequence[Tensor | None]
    norms: Tensor
    normalise_layers: bool
    exact: bool = True

    def weights(self, norms: Tensor, rounding: float) -> Tensor:
        """Compute the weights of the products of u_l with samples' gradients: 1/‖s_l‖, or 1 without normalisation.

        Args:
            norms: norms ‖s_l‖ of the samples, float64 [b, L].
            rounding: share of the largest norm, from `ROUNDING`.

        Returns:
            Weights, float64 [b, L]; a gradient that holds rounding errors only has weight zero.
        """
        if not self.normalise_layers:
            return torch.ones_like(norms)
        return torch.where(significant(norms, rounding), norms.reciprocal(), 0.0)


def significant(norms: Tensor, rounding: float) -> Tensor:
    """Tell which of norms [b, L] are above the rounding errors of the largest norm in the row."""
    return norms > rounding * norms.amax(dim=1, keepdim=True)


class RestoredTensors(Sequence[Tensor | None]):
    """Tensors of a direction that are made from a query's RapidGrad one at a time, when they are needed.

    Args:
        restore: function that gives the tensor [r, c] at a position, scaled like those of `Direction`.
        count: number of tensors L.
    """

    def __init__(self, restore: Callable[[int], Tensor], count: int) -> None:
        self._restore = restore
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> Tensor | None: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Tensor | None]: ...
    def __getitem__(self, position: int | slice) -> Tensor | Sequence[Tensor | None] | None:
        if isinstance(position, slice):
            return [self[one] for one in range(*position.indices(self._count))]
        if not -self._count <= position < self._count:
            raise IndexError(position)
        return self._restore(position % self._count)


class WholeGradients:
    """Accumulator that keeps every parameter's gradient of a single sample.

    Attributes:
        tensors: gradients, float32 [r, c], by the parameter's position; None where there is none.
    """

    def __init__(self, batch: int, tensors: int) -> None:
        if batch != 1:
            raise ValueError(f"whole gradients are kept for one sample at a time, not {batch}")
        self.tensors: list[Tensor | None] = [None] * tensors

    def consume(self, gradient: ParameterGradient) -> None:
        """Keep one parameter's gradient."""
        self.tensors[gradient.position] = gradient.block(0, gradient.rows)[0]

    def result(self) -> Tensor:
        """Return the norms of the gradients, float64 [1, L]."""
        norms = [0.0 if tensor is None else norm_of(tensor) for tensor in self.tensors]
        return torch.tensor([norms], dtype=torch.float64)


def whole_gradient(
    engine: RapidGradEngine, sample: TokenSample, objective: Differentiated
) -> tuple[list[Tensor | None], Tensor]:
    """Compute the gradient of one sample's mean objective, by plain autograd.

    Args:
        engine: engine of the model.
        sample: the sample.
        objective: quantity of a target token that is differentiated.

    Returns:
        The gradient by parameter tensor, float32 [r, c] each, None where there is none; and its tensors' norms,
        float64 [L].
    """
    kept: list[WholeGradients] = []

    def new(batch: int) -> WholeGradients:
        kept.append(WholeGradients(batch, len(engine.names)))
        return kept[-1]

    norms, factors = engine.accumulate([sample], new, objective, plainly=True)
    factor, tensors = float(factors[0]), kept[-1].tensors
    if factor != 1:
        tensors = [None if tensor is None else tensor.mul_(factor) for tensor in tensors]
    return tensors, norms[0] * factor


def norm_of(tensor: Tensor) -> float:
    """Compute the Euclidean norm of a tensor of any size, summed in double precision."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def direction_of(
    tensors: Sequence[Tensor | None], norms: Tensor, normalise_layers: bool, rounding: float, factor: float = 1.0
) -> Direction:
    """Make a direction from a gradient; its tensors are scaled in place.

    Args:
        tensors: tensors of `WholeGradients`.
        norms: norms that the direction is normalised by, float64 [L]; norms of another gradient if `tensors` are
            only a part of it, as those of one token are.
        normalise_layers: whether to normalise.
        rounding: share of the largest norm, from `ROUNDING`.
        factor: additional factor for the tensors.
    """
    counted = significant(norms[None], rounding)[0].tolist()
    scaled: list[Tensor | None] = []
    for tensor, norm, counts in zip(tensors, norms.tolist(), counted, strict=True):
        if tensor is None or (normalise_layers and not counts):
            scaled.append(None)
        else:
            scaled.append(tensor.mul_(factor / (norm * len(tensors)) if normalise_layers else factor))
    return Direction(scaled, norms, normalise_layers)

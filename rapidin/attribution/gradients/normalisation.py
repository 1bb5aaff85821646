"""Layer-wise normalisation: which norms each parameter tensor's gradients are divided by before projection.

A store with layer-wise normalisation divides each gradient by its own L2 norm (`OwnNorms`). The other classes are
for stores without it, and for gradients that are parts of another gradient and so share its norms.

Shape letters: b batch · L parameter tensors.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Normalisation(Protocol):
    """Decides which factors the gradients of one parameter tensor are multiplied by."""

    @property
    def needs_norms(self) -> bool:
        """Whether `factors` uses the squared norms; computing them takes a pass over the gradients."""

    def factors(self, position: int, squares: Tensor) -> Tensor | None:
        """Choose the factors of one parameter tensor's gradients.

        Args:
            position: position of the tensor in the flattened gradient.
            squares: squared norm of each sample's gradient, float64 [b]; anything if `needs_norms` is false.

        Returns:
            Factor of each sample's gradient, float32 [b]; None means that all factors are 1.
        """


class OwnNorms:
    """Divides each sample's gradient by its own norm; a gradient of zeros stays zero."""

    needs_norms = True

    def factors(self, position: int, squares: Tensor) -> Tensor | None:  # noqa: ARG002 - the protocol's
        """See `Normalisation.factors`."""
        return torch.where(squares > 0, squares.rsqrt(), 0.0).float()


class GivenNorms:
    """Divides every sample's gradients by the norms of another gradient.

    Args:
        norms: norms of the other gradient's tensors, [L]; a tensor of norm zero gives zeros.
    """

    needs_norms = False

    def __init__(self, norms: Tensor) -> None:
        self._norms = norms.tolist()

    def factors(self, position: int, squares: Tensor) -> Tensor | None:
        """See `Normalisation.factors`."""
        norm = self._norms[position]
        return torch.full((len(squares),), 1 / norm if norm > 0 else 0.0, device=squares.device)


class Unnormalised:
    """Leaves every gradient as it is."""

    needs_norms = False

    def factors(self, position: int, squares: Tensor) -> Tensor | None:  # noqa: ARG002 - the protocol's
        """See `Normalisation.factors`."""
        return None


class RecordedNorms:
    """Leaves the gradient of a single sample as it is, and keeps the norms of its tensors.

    Args:
        tensors: number of parameter tensors L.

    Attributes:
        norms: norm of each tensor that has passed, float64 [L]; 0 for the others.
    """

    needs_norms = True

    def __init__(self, tensors: int) -> None:
        self.norms = torch.zeros(tensors, dtype=torch.float64)

    def factors(self, position: int, squares: Tensor) -> Tensor | None:
        """See `Normalisation.factors`."""
        (self.norms[position],) = squares.sqrt().cpu()
        return None


def squares_for(normalisation: Normalisation, values: Tensor) -> Tensor:
    """Compute the squared norm of each sample's values [b, …], float64 [b]; zeros if the norms are not needed."""
    if normalisation.needs_norms:
        return squared_norms(values)
    return torch.zeros(len(values), dtype=torch.float64, device=values.device)


def scale(normalisation: Normalisation, position: int, values: Tensor, squares: Tensor) -> None:
    """Multiply each sample's values by the factors of the tensor they belong to.

    Args:
        normalisation: decides the factors.
        position: position of the tensor in the flattened gradient.
        values: gradient or sketch of each sample, [b, …]; changed in place.
        squares: squared norm of each sample's gradient, float64 [b], from `squares_for`.
    """
    factors = normalisation.factors(position, squares)
    if factors is not None:
        values *= factors.view(-1, *[1] * (values.dim() - 1))


def squared_norms(values: Tensor) -> Tensor:
    """Compute the squared L2 norm of each sample's values [b, …], float64 [b].

    A CPU sums in float32, which is three times as fast, and sums again in float64 if a result is outside the range
    of float32. A GPU sums in float64 at once, because looking at a result would make the host wait for the device.
    """
    flat = values.flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64 if flat.is_cuda else None)
    if not flat.is_cuda and not ((norms > 1e-15) & torch.isfinite(norms)).all():
        norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    squares: Tensor = norms.double().square()
    return squares

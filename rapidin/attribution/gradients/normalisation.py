"""What each parameter tensor's gradients are divided by before they are projected: their norms, as a rule.

Shape letters: b batch · L parameter tensors.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Normalisation(Protocol):
    """Decides what the gradients of one parameter tensor are multiplied by."""

    @property
    def needs_norms(self) -> bool:
        """Whether the squared norms are looked at; to compute them takes a pass over the gradients."""

    def factors(self, position: int, squares: Tensor) -> Tensor | None:
        """Factors [b], float32, of the tensor at `position`, given squared norms, float64 [b]; None: all 1."""


class OwnNorms:
    """Each gradient is divided by its norm; one without a gradient stays zero."""

    needs_norms = True

    def factors(self, position: int, squares: Tensor) -> Tensor | None:  # noqa: ARG002 - the protocol's
        """See `Normalisation.factors`."""
        return torch.where(squares > 0, squares.rsqrt(), 0.0).float()


class GivenNorms:
    """All samples' gradients are divided by the norms [L] of another gradient."""

    needs_norms = False

    def __init__(self, norms: Tensor) -> None:
        self._norms = norms.tolist()

    def factors(self, position: int, squares: Tensor) -> Tensor | None:
        """See `Normalisation.factors`."""
        norm = self._norms[position]
        return torch.full((len(squares),), 1 / norm if norm > 0 else 0.0, device=squares.device)


class Unnormalised:
    """Nothing is divided."""

    needs_norms = False

    def factors(self, position: int, squares: Tensor) -> Tensor | None:  # noqa: ARG002 - the protocol's
        """See `Normalisation.factors`."""
        return None


class RecordedNorms:
    """Nothing is divided, and the norms are kept.

    Attributes:
        norms: float64 [L], of a single sample.
    """

    needs_norms = True

    def __init__(self, tensors: int) -> None:
        self.norms = torch.zeros(tensors, dtype=torch.float64)

    def factors(self, position: int, squares: Tensor) -> Tensor | None:
        """See `Normalisation.factors`."""
        (self.norms[position],) = squares.sqrt().cpu()
        return None


def squares_for(normalisation: Normalisation, values: Tensor) -> Tensor:
    """Squared norm of each sample's values [b, …], float64 [b]; zeros where nobody looks at them."""
    if normalisation.needs_norms:
        return squared_norms(values)
    return torch.zeros(len(values), dtype=torch.float64, device=values.device)


def scale(normalisation: Normalisation, position: int, values: Tensor, squares: Tensor) -> None:
    """Normalise each sample's values [b, …] of the tensor at `position` in place, given squared norms [b]."""
    factors = normalisation.factors(position, squares)
    if factors is not None:
        values *= factors.view(-1, *[1] * (values.dim() - 1))


def squared_norms(values: Tensor) -> Tensor:
    """Squared L2 norm of each sample's values, float64 [b].

    On a CPU summed in float32, which is three times as fast, unless the squares would leave its range; on a GPU
    that look at the result would wait for the device.
    """
    flat = values.flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64 if flat.is_cuda else None)
    if not flat.is_cuda and not ((norms > 1e-15) & torch.isfinite(norms)).all():
        norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    squares: Tensor = norms.double().square()
    return squares

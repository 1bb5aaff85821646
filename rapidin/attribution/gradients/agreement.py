"""Comparison of gradients that two sources computed for the same samples, parameter tensor by parameter tensor.

Only two numbers of each parameter tensor's gradient are kept: its norm and a product with random signs. So even
the gradients of the largest model can be compared without being held in memory.

Shape letters: b batch · L parameter tensors · r rows · c columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rapidin.attribution.gradients.contributions import ParameterGradient

_ROWS_AT_ONCE = 1024


class TensorDigests:
    """Accumulator of two digests of every sample's gradient G [r, c] of every parameter tensor.

    They are the norm of G and the bilinear form ρᵀGγ with random signs ρ [r] and γ [c], which costs little more
    than the norm.

    Args:
        batch: number of samples b.
        tensors: number of parameter tensors L.
    """

    def __init__(self, batch: int, tensors: int) -> None:
        self._digests = torch.zeros(batch, tensors, 2, dtype=torch.float64)

    def consume(self, gradient: ParameterGradient) -> None:
        """Digest one parameter's gradients."""
        generator = torch.Generator().manual_seed(gradient.position)
        of_rows, of_columns = (
            torch.randint(0, 2, (size,), generator=generator).mul_(2).sub_(1).float().to(gradient.device)
            for size in (gradient.rows, gradient.columns)
        )
        digests = torch.zeros(gradient.batch, 2, dtype=torch.float64)
        for first in range(0, gradient.rows, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, gradient.rows - first)
            for sample in range(gradient.batch):
                block = gradient.of_sample(sample).block(first, rows)[0]
                form = (block @ of_columns).double() @ of_rows[first : first + rows].double()
                digests[sample] += torch.stack([block.square().sum(dtype=torch.float64), form]).cpu()
        self._digests[:, gradient.position, 0] = digests[:, 0].sqrt()
        self._digests[:, gradient.position, 1] = digests[:, 1]

    def result(self) -> Tensor:
        """Return the norms and forms, float64 [b, L, 2]."""
        return self._digests


def disagreement(fast: Tensor, slow: Tensor, dtype: torch.dtype) -> float | None:
    """Compare the digests of the same samples' gradients from two sources.

    Args:
        fast: digests from the batched source, float64 [b, L, 2].
        slow: digests from plain autograd, float64 [b, L, 2].
        dtype: type of the weights, which bounds the rounding errors.

    Returns:
        The largest difference in a tensor relative to its norm, divided by the tolerance: above 1 the two
        disagree. None if no sample has a finite gradient other than zero, so that there is nothing to compare.
    """
    usable = torch.isfinite(slow).all(dim=(1, 2)) & (slow[:, :, 0] > 0).any(dim=1)
    if not usable.any():
        return None
    fast, slow = fast[usable], slow[usable]
    wide = dtype in (torch.float32, torch.float64)
    # If a tensor's exact gradient is zero (a bias that shifts all attention scores alike), it holds rounding
    # errors only, so differences are compared with at least this share of the largest norm.
    floor = slow[:, :, 0].amax(dim=1, keepdim=True) * (1e-5 if wide else 1e-2)
    scale = slow[:, :, 0].maximum(floor)
    relative = ((fast - slow).abs() / scale.unsqueeze(2)).nan_to_num(nan=torch.inf)
    return float(relative.max()) / (1e-3 if wide else 0.1)

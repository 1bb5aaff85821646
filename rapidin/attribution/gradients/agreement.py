"""Does the batched way give what plain autograd gives? Compared tensor by tensor, on a few real samples.

Only a norm and an inner product with random signs are kept of every parameter tensor, so that even the largest
model's gradients can be compared without being held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rapidin.attribution.gradients.contributions import ParameterGradient

_ROWS_AT_ONCE = 1024


class TensorDigests:
    """Accumulator of a norm and a random inner product per sample and parameter tensor."""

    def __init__(self, batch: int, tensors: int) -> None:
        self._digests = torch.zeros(batch, tensors, 2, dtype=torch.float64)

    def consume(self, gradient: ParameterGradient) -> None:
        """Digest one parameter's gradients."""
        squares = torch.zeros(gradient.batch, dtype=torch.float64)
        products = torch.zeros(gradient.batch, dtype=torch.float64)
        for first_row in range(0, gradient.rows, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, gradient.rows - first_row)
            generator = torch.Generator().manual_seed(gradient.position * 1_000_003 + first_row)
            signs = torch.randint(0, 2, (rows, gradient.columns), generator=generator).to(gradient.device)
            for sample in range(gradient.batch):
                block = gradient.of_sample(sample).block(first_row, rows)[0]
                squares[sample] += block.square().sum(dtype=torch.float64).cpu()
                products[sample] += (block * (2 * signs - 1)).sum(dtype=torch.float64).cpu()
        self._digests[:, gradient.position, 0] = squares.sqrt()
        self._digests[:, gradient.position, 1] = products

    def result(self) -> Tensor:
        """Return float64 [b, L, 2]: norm, and inner product with the signs."""
        return self._digests


def disagreement(fast: Tensor, slow: Tensor, dtype: torch.dtype) -> float | None:
    """Compare the digests of the two ways.

    Args:
        fast: of the batched way, float64 [b, L, 2].
        slow: of plain autograd.
        dtype: of the weights, which bounds what rounding can do.

    Returns:
        The largest difference of a tensor relative to its norm, in units of what is tolerable: above 1 the two
        disagree. None where no sample has a finite gradient, so that nothing can be said.
    """
    usable = torch.isfinite(slow).all(dim=(1, 2)) & (slow[:, :, 0] > 0).any(dim=1)
    if not usable.any():
        return None
    fast, slow = fast[usable], slow[usable]
    wide = dtype in (torch.float32, torch.float64)
    # A tensor whose exact gradient is zero (a bias that shifts all attention scores alike) holds rounding only.
    floor = slow[:, :, 0].amax(dim=1, keepdim=True) * (1e-5 if wide else 1e-2)
    scale = slow[:, :, 0].maximum(floor)
    relative = ((fast - slow).abs() / scale.unsqueeze(2)).nan_to_num(nan=torch.inf)
    return float(relative.max()) / (1e-3 if wide else 0.1)

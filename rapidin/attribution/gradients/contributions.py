"""Per-sample gradients of one parameter tensor, kept as factors and formed block of rows by block of rows.

The gradient of a linear layer's weight is Σ_t δ_t x_tᵀ and that of an embedding puts δ_t into row token_t, so
the factors say everything and are small. A parameter used in several places (tied embeddings) has several
contributions, which add up before anything is normalised. This module knows tensors, not models or projections.

Shape letters: b batch · t tokens · r rows · c columns of the parameter seen as a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rapidin.support import WorkingMemory


class Contribution(Protocol):
    """What one use of a parameter adds to its per-sample gradient."""

    def add_to(self, block: Tensor, first_row: int) -> None:
        """Add rows ``first_row …`` of the contribution to `block`, float32 [b, r, c]."""

    def of_sample(self, sample: int) -> Contribution:
        """Give one sample's contribution, as a batch of one."""

    @property
    def device(self) -> torch.device:
        """Where the factors are."""


@dataclass(frozen=True, slots=True)
class OuterProducts:
    """Σ_t left_t right_tᵀ: `left` is [b, t, r] and `right` [b, t, c]."""

    left: Tensor
    right: Tensor

    def add_to(self, block: Tensor, first_row: int) -> None:
        """See `Contribution.add_to`; products are summed in float32 whatever the factors' type."""
        block += self.formed(first_row, block.shape[1])

    def formed(self, first_row: int, rows: int, memory: WorkingMemory | None = None) -> Tensor:
        """Form rows ``first_row … first_row + rows``, float32 [b, rows, c]."""
        left = self.left[:, :, first_row : first_row + rows].float().transpose(1, 2)
        shape = (left.shape[0], rows, self.right.shape[2])
        room = memory.room(shape, left.device) if memory is not None else None
        return torch.bmm(left, self.right.float(), out=room)

    def of_sample(self, sample: int) -> OuterProducts:
        """See `Contribution.of_sample`."""
        return OuterProducts(self.left[sample : sample + 1], self.right[sample : sample + 1])

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.left.device


@dataclass(frozen=True, slots=True)
class ScatteredRows:
    """Row index[b, t] receives values[b, t]: `index` int64 [b, t], −1 for none; `values` [b, t, c]."""

    index: Tensor
    values: Tensor

    def add_to(self, block: Tensor, first_row: int) -> None:
        """See `Contribution.add_to`."""
        batch, rows, _ = block.shape
        sample, token = torch.nonzero((self.index >= first_row) & (self.index < first_row + rows), as_tuple=True)
        target = sample * rows + self.index[sample, token] - first_row
        block.view(batch * rows, -1).index_add_(0, target, self.values[sample, token].float())

    def of_sample(self, sample: int) -> ScatteredRows:
        """See `Contribution.of_sample`."""
        return ScatteredRows(self.index[sample : sample + 1], self.values[sample : sample + 1])

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.values.device


@dataclass(frozen=True, slots=True)
class DenseGradient:
    """The gradient itself, [b, r, c]."""

    values: Tensor

    def add_to(self, block: Tensor, first_row: int) -> None:
        """See `Contribution.add_to`."""
        block += self.values[:, first_row : first_row + block.shape[1]]

    def of_sample(self, sample: int) -> DenseGradient:
        """See `Contribution.of_sample`."""
        return DenseGradient(self.values[sample : sample + 1])

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device


class ParameterGradient:
    """The gradients of one parameter tensor for every sample of a batch.

    Attributes:
        position: of the parameter among the traced ones.
        batch: b, number of samples.
        rows: r, all leading dimensions of the parameter together (1 for a vector).
        columns: c, its last dimension.
        device: where blocks are formed.
        contributions: whose sum the gradients are.
    """

    def __init__(
        self, position: int, batch: int, shape: tuple[int, ...], contributions: list[Contribution]
    ) -> None:
        self.position = position
        self.batch = batch
        self.rows, self.columns = as_matrix(shape)
        self._shape = shape
        self.device = contributions[0].device
        self.contributions = contributions

    def block(self, first_row: int, rows: int, memory: WorkingMemory | None = None) -> Tensor:
        """Form rows ``first_row … first_row + rows``, float32 [b, rows, c].

        Args:
            first_row: where to begin.
            rows: how many.
            memory: to form them in, if the caller has some.
        """
        only = self.contributions[0]
        if len(self.contributions) == 1 and isinstance(only, OuterProducts):
            return only.formed(first_row, rows, memory)
        block = torch.zeros(self.batch, rows, self.columns, dtype=torch.float32, device=self.device)
        for contribution in self.contributions:
            contribution.add_to(block, first_row)
        return block

    def of_sample(self, sample: int) -> ParameterGradient:
        """Give one sample's gradient, as a batch of one."""
        parts = [part.of_sample(sample) for part in self.contributions]
        return ParameterGradient(self.position, 1, self._shape, parts)

    def occupied_rows(self) -> Tensor | None:
        """Find the rows that some sample touches, if the gradient is sparse.

        Returns:
            int64 [n] row numbers, ascending; None where every row may be touched.
        """
        scattered = [part for part in self.contributions if isinstance(part, ScatteredRows)]
        if len(scattered) != len(self.contributions):
            return None
        rows: Tensor = torch.unique(torch.cat([part.index[part.index >= 0] for part in scattered]))
        return rows

    def pieces(self, elements: int, memory: WorkingMemory) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Form the whole gradient, some rows at a time; only those that some sample touches, if it is sparse.

        Args:
            elements: formed at a time, unless a single row has more.
            memory: to form dense pieces in, so each must be used up before the next.

        Yields:
            Which rows, and their gradients, float32 [b, rows, c].
        """
        most = max(1, elements // (self.batch * self.columns))
        occupied = self.occupied_rows()
        if occupied is not None:
            for rows in occupied.split(most):
                yield rows, self.chosen_rows(rows)
            return
        for first in range(0, self.rows, most):
            count = min(most, self.rows - first)
            yield slice(first, first + count), self.block(first, count, memory)

    def chosen_rows(self, rows: Tensor) -> Tensor:
        """Form some rows of a sparse gradient, float32 [b, n, c].

        Args:
            rows: int64 [n], ascending, some of `occupied_rows`.
        """
        block = torch.zeros(self.batch, len(rows), self.columns, dtype=torch.float32, device=self.device)
        for part in self.contributions:
            if isinstance(part, ScatteredRows):
                places = torch.searchsorted(rows, part.index).clamp_max(len(rows) - 1)
                wanted = rows[places] == part.index
                ScatteredRows(torch.where(wanted, places, -1), part.values).add_to(block, 0)
        return block


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a parameter tensor seen as a matrix: a vector is one row, a scalar one element."""
    if not shape:
        return 1, 1
    return math.prod(shape[:-1]), shape[-1]

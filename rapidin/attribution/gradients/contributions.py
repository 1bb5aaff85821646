"""Per-sample gradients of one parameter tensor, which are kept as factors and formed a block of rows at a time.

The gradient of a linear layer's weight is Σ_t δ_t x_tᵀ, where x is the layer's input and δ the gradient of the
loss with respect to its output. The gradient of an embedding adds δ_t to row token_t. So the factors x and δ
determine the gradient, and they are much smaller. A parameter that is used in several places (tied embeddings) has
one contribution for each use; these add up before anything is normalised. This module knows tensors only, neither
models nor projections.

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
    """The part that one use of a parameter adds to its per-sample gradient."""

    def add_to(self, block: Tensor, first_row: int) -> None:
        """Add some rows of the contribution to a block.

        Args:
            block: float32 [b, rows, c]; changed in place. Its size says how many rows are wanted.
            first_row: row of the parameter that the block's first row stands for.
        """

    def of_sample(self, sample: int) -> Contribution:
        """Return one sample's contribution, as a batch of one."""

    @property
    def device(self) -> torch.device:
        """Device that holds the factors."""


@dataclass(frozen=True, slots=True)
class OuterProducts:
    """The contribution Σ_t left_t right_tᵀ of a linear layer.

    Attributes:
        left: left factors [b, t, r].
        right: right factors [b, t, c].
    """

    left: Tensor
    right: Tensor

    def add_to(self, block: Tensor, first_row: int) -> None:
        """See `Contribution.add_to`; products are summed in float32, whatever the type of the factors is."""
        block += self.formed(first_row, block.shape[1])

    def formed(self, first_row: int, rows: int, memory: WorkingMemory | None = None) -> Tensor:
        """Form some rows of the gradient.

        Args:
            first_row: first row to form.
            rows: number of rows.
            memory: working memory for the result, which its next use overwrites; None: new memory.

        Returns:
            The rows, float32 [b, rows, c].
        """
        left = self.left[:, :, first_row : first_row + rows].float().transpose(1, 2)
        shape = (left.shape[0], rows, self.right.shape[2])
        room = memory.room(shape, left.device) if memory is not None else None
        return torch.bmm(left, self.right.float(), out=room)

    def of_sample(self, sample: int) -> OuterProducts:
        """See `Contribution.of_sample`."""
        return OuterProducts(self.left[sample : sample + 1], self.right[sample : sample + 1])

    @property
    def device(self) -> torch.device:
        """See `Contribution.device`."""
        return self.left.device


@dataclass(frozen=True, slots=True)
class ScatteredRows:
    """The contribution of an embedding: values[b, t] is added to row index[b, t] of sample b's gradient.

    Attributes:
        index: row of each value, int64 [b, t]; −1 means that the value is left out.
        values: the values [b, t, c].
    """

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
        """See `Contribution.device`."""
        return self.values.device


@dataclass(frozen=True, slots=True)
class DenseGradient:
    """The contribution that is the formed gradient itself.

    Attributes:
        values: gradient of each sample, [b, r, c].
    """

    values: Tensor

    def add_to(self, block: Tensor, first_row: int) -> None:
        """See `Contribution.add_to`."""
        block += self.values[:, first_row : first_row + block.shape[1]]

    def of_sample(self, sample: int) -> DenseGradient:
        """See `Contribution.of_sample`."""
        return DenseGradient(self.values[sample : sample + 1])

    @property
    def device(self) -> torch.device:
        """See `Contribution.device`."""
        return self.values.device


class ParameterGradient:
    """The gradients of one parameter tensor for every sample of a batch.

    Args:
        position: position of the parameter among the traced ones.
        batch: number of samples b.
        shape: shape of the parameter.
        contributions: contributions of the parameter's uses, at least one; the gradients are their sum.

    Attributes:
        position: position of the parameter among the traced ones.
        batch: number of samples b.
        rows: number of rows r: the product of all dimensions of the parameter but the last (1 for a vector).
        columns: number of columns c: the last dimension of the parameter.
        device: device on which blocks are formed.
        contributions: contributions whose sum the gradients are.
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
        """Form some rows of the gradient.

        Args:
            first_row: first row to form.
            rows: number of rows.
            memory: working memory for the result, which its next use overwrites; None: new memory.

        Returns:
            The rows, float32 [b, rows, c].
        """
        only = self.contributions[0]
        if len(self.contributions) == 1 and isinstance(only, OuterProducts):
            return only.formed(first_row, rows, memory)
        block = torch.zeros(self.batch, rows, self.columns, dtype=torch.float32, device=self.device)
        for contribution in self.contributions:
            contribution.add_to(block, first_row)
        return block

    def of_sample(self, sample: int) -> ParameterGradient:
        """Return one sample's gradient, as a batch of one."""
        parts = [part.of_sample(sample) for part in self.contributions]
        return ParameterGradient(self.position, 1, self._shape, parts)

    def occupied_rows(self) -> Tensor | None:
        """Find the rows that some sample touches, if the gradient is sparse.

        Returns:
            Numbers of these rows, int64 [n], ascending; None if the gradient is not sparse.
        """
        scattered = [part for part in self.contributions if isinstance(part, ScatteredRows)]
        if len(scattered) != len(self.contributions):
            return None
        rows: Tensor = torch.unique(torch.cat([part.index[part.index >= 0] for part in scattered]))
        return rows

    def pieces(self, elements: int, memory: WorkingMemory) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Form the whole gradient, some rows at a time; a sparse gradient only where some sample touches it.

        Args:
            elements: maximum number of elements that are formed at a time, unless a single row has more.
            memory: working memory for dense pieces; the next piece overwrites the one before.

        Yields:
            Rows of the parameter, and their gradients, float32 [b, rows, c].
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
            rows: numbers of the rows, int64 [n], ascending; they must be among `occupied_rows`.
        """
        block = torch.zeros(self.batch, len(rows), self.columns, dtype=torch.float32, device=self.device)
        for part in self.contributions:
            if isinstance(part, ScatteredRows):
                places = torch.searchsorted(rows, part.index).clamp_max(len(rows) - 1)
                wanted = rows[places] == part.index
                ScatteredRows(torch.where(wanted, places, -1), part.values).add_to(block, 0)
        return block


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the numbers of rows and columns of a parameter tensor that is seen as a matrix.

    All dimensions but the last are rows. A vector is one row, and a scalar is one element.
    """
    if not shape:
        return 1, 1
    return math.prod(shape[:-1]), shape[-1]

"""The compression of the RapidIn authors, written down plainly from Algorithm 1 and Section 3.2 of their paper.

As in their code, the flattened gradient is filled up with zeros to a multiple of 2^24. Each of λ rounds permutes
the rows of the vector as a matrix of x rows, then the columns of it as a matrix of x' columns, for random divisors
x and x'. Then come Rademacher signs, and every |v|/K neighbours are summed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

_MULTIPLE = 1 << 24


class AuthorsProjection:
    """The map from a flattened gradient to K numbers.

    Args:
        length: of the gradients.
        dimension: K.
        shuffles: λ.
    """

    def __init__(self, length: int, dimension: int, shuffles: int = 20) -> None:
        self._dimension = dimension
        self._padded = math.ceil(length / _MULTIPLE) * _MULTIPLE
        chosen = random.Random(0)
        generator = torch.Generator().manual_seed(0)
        divisors = _divisors(self._padded)
        self._permutations = [
            torch.randperm(chosen.choice(divisors), generator=generator) for _ in range(2 * shuffles)
        ]
        self._signs = (
            torch.randint(0, 2, (self._padded,), generator=generator, dtype=torch.float32).mul_(2).sub_(1)
        )

    def __call__(self, gradient: Tensor) -> Tensor:
        """Project one gradient, float32 [p], to float32 [K]."""
        shuffled = self._shuffle(self._padding(gradient))
        return (shuffled * self._signs).view(self._dimension, -1).sum(dim=1)

    def tabulated(self) -> Callable[[Tensor], Tensor]:
        """Write all rounds out as one permutation: the same map for many gradients, where time is not measured."""
        sources = self._shuffle(torch.arange(self._padded))

        def project(gradient: Tensor) -> Tensor:
            shuffled = self._padding(gradient)[sources]
            return (shuffled * self._signs).view(self._dimension, -1).sum(dim=1)

        return project

    def _padding(self, gradient: Tensor) -> Tensor:
        return torch.nn.functional.pad(gradient, (0, self._padded - len(gradient)))

    def _shuffle(self, vector: Tensor) -> Tensor:
        for number, permutation in enumerate(self._permutations):
            if number % 2 == 0:
                vector = vector.view(len(permutation), -1)[permutation].flatten()
            else:
                vector = vector.view(-1, len(permutation))[:, permutation].flatten()
        return vector


def _divisors(number: int) -> list[int]:
    """Divisors of a number other than 1 and itself."""
    small = [divisor for divisor in range(2, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})

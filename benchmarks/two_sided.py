"""Two-sided random projection of each layer's gradient, as bergson and LoGra compress it.

A gradient G [o, i] of a matrix becomes z = A G Bᵀ / p with random signs A [p, o] and B [p, i]: E⟨z, z'⟩ = ⟨G, G'⟩.
It is cheap, for A and B can be applied to the factors of G. But its variance depends on how G is made: numbers of
one row of z share a row of A, and what G has in few directions is not averaged over p² independent signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.exact import flattened


class TwoSided:
    """The map of all layers; vectors (norms, biases) are kept as they are.

    Args:
        shapes: of the parameter tensors.
        dimension: p.

    Attributes:
        numbers: of the result.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], dimension: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def signs(columns: int) -> Tensor:
            drawn = torch.randint(0, 2, (dimension, columns), generator=generator, dtype=torch.float32)
            return drawn.mul_(2).sub_(1) / math.sqrt(dimension)

        self._sides = [
            (signs(shape[0]), signs(math.prod(shape[1:]))) if len(shape) > 1 else None for shape in shapes
        ]
        self.numbers = sum(
            math.prod(shape) if sides is None else dimension**2
            for shape, sides in zip(shapes, self._sides, strict=True)
        )

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """Project the parts of one gradient to float32 [numbers]."""
        return flattened(
            part if sides is None else sides[0] @ part.flatten(1) @ sides[1].T
            for part, sides in zip(parts, self._sides, strict=True)
        )

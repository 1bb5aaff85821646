"""Several vectors in the space of the traced parameters, side by side: what curvature is multiplied with.

Shape letters: q vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rapidin.attribution.influence import WholeGradient

Vectors = dict[str, Tensor]
"""By parameter name, [q, …] each, the dots being the parameter's shape."""


def stacked(gradients: Sequence[WholeGradient], parameters: Mapping[str, nn.Parameter]) -> Vectors:
    """Gradients as vectors, float32, where the parameters are.

    Args:
        gradients: q of them, tensors in the order of `parameters`.
        parameters: the traced ones by name.
    """
    vectors: Vectors = {}
    for position, (name, parameter) in enumerate(parameters.items()):
        of_tensor = [gradient[position] for gradient in gradients]
        found = torch.zeros(len(gradients), *parameter.shape, device=parameter.device)
        for row, tensor in enumerate(of_tensor):
            if tensor is not None:
                found[row] = tensor.reshape(parameter.shape)
        vectors[name] = found
    return vectors


def unstacked(vectors: Vectors) -> list[WholeGradient]:
    """The opposite of `stacked`: q lists of matrices [r, c]; a parameter that is a vector is one row."""
    count = len(next(iter(vectors.values())))
    matrices = [tensor.reshape(count, -1, tensor.shape[-1]) for tensor in vectors.values()]
    return [[matrix[row] for matrix in matrices] for row in range(count)]


def inner(left: Vectors, right: Vectors) -> Tensor:
    """Inner products of the q pairs, float64 [q]."""
    total = torch.zeros(len(next(iter(left.values()))), dtype=torch.float64)
    for name, tensor in left.items():
        products = tensor.flatten(1) * right[name].flatten(1)
        total += products.sum(dim=1, dtype=torch.float64).cpu()
    return total


def norms(vectors: Vectors) -> Tensor:
    """Euclidean norms, float64 [q]."""
    return inner(vectors, vectors).sqrt()


def add(to: Vectors, vectors: Vectors, factors: Tensor | float = 1.0) -> None:
    """Add vectors times factors (one, or [q]) in place."""
    for name, tensor in to.items():
        tensor += per_row(factors, tensor) * vectors[name]


def scale(vectors: Vectors, factors: Tensor | float) -> None:
    """Multiply with factors (one, or [q]) in place."""
    for tensor in vectors.values():
        tensor *= per_row(factors, tensor)


def copied(vectors: Vectors) -> Vectors:
    """Vectors of their own memory."""
    return {name: tensor.clone() for name, tensor in vectors.items()}


def zeros_like(vectors: Vectors) -> Vectors:
    """As many zero vectors."""
    return {name: torch.zeros_like(tensor) for name, tensor in vectors.items()}


def chosen(vectors: Vectors, rows: Tensor | slice) -> Vectors:
    """Some of the q vectors."""
    return {name: tensor[_on(rows, tensor)] for name, tensor in vectors.items()}


def put(vectors: Vectors, rows: Tensor, values: Vectors) -> None:
    """Write vectors over the chosen ones in place."""
    for name, tensor in vectors.items():
        tensor[_on(rows, tensor)] = values[name]


def random_vector(like: Vectors, seed: int) -> Vectors:
    """One Gaussian vector of length 1, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: torch.randn(1, *tensor.shape[1:], generator=generator).to(tensor) for name, tensor in like.items()
    }
    scale(found, norms(found).reciprocal())
    return found


def per_row(factors: Tensor | float, tensor: Tensor) -> Tensor | float:
    """Factors [q] in a shape that multiplies the rows of a tensor [q, …]."""
    if not isinstance(factors, Tensor):
        return factors
    return factors.to(tensor).reshape(-1, *(1,) * (tensor.dim() - 1))


def _on(rows: Tensor | slice, tensor: Tensor) -> Tensor | slice:
    return rows.to(tensor.device) if isinstance(rows, Tensor) else rows

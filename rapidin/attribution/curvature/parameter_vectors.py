"""Arithmetic with several vectors in the space of the traced parameters.

Such vectors are multiplied with curvature. They are kept parameter by parameter: the tensor of a parameter holds
the parts of all q vectors.

Shape letters: q vectors · r rows · c columns of a parameter seen as a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rapidin.attribution.influence import WholeGradient

Vectors = dict[str, Tensor]
"""The q vectors by parameter name: each tensor is [q, …], where the dots are the parameter's shape."""


def stacked(gradients: Sequence[WholeGradient], parameters: Mapping[str, nn.Parameter]) -> Vectors:
    """Make vectors of gradients, float32, on the devices of the parameters.

    Args:
        gradients: the q gradients, whose tensors are in the order of `parameters`; None stands for zeros.
        parameters: traced parameters by name.
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
    """Make gradients of q vectors, which is the inverse of `stacked`.

    Returns:
        The q gradients, each a list of matrices [r, c]; a parameter that is a vector is one row.
    """
    count = len(next(iter(vectors.values())))
    matrices = [tensor.reshape(count, -1, tensor.shape[-1]) for tensor in vectors.values()]
    return [[matrix[row] for matrix in matrices] for row in range(count)]


def inner(left: Vectors, right: Vectors) -> Tensor:
    """Compute the inner product of each of the q pairs of vectors, float64 [q]."""
    total = torch.zeros(len(next(iter(left.values()))), dtype=torch.float64)
    for name, tensor in left.items():
        products = tensor.flatten(1) * right[name].flatten(1)
        total += products.sum(dim=1, dtype=torch.float64).cpu()
    return total


def norms(vectors: Vectors) -> Tensor:
    """Compute the Euclidean norm of each vector, float64 [q]."""
    return inner(vectors, vectors).sqrt()


def add(to: Vectors, vectors: Vectors, factors: Tensor | float = 1.0) -> None:
    """Add multiples of vectors to other vectors in place.

    Args:
        to: the q vectors that are changed.
        vectors: the q vectors that are added, or one vector that is added to each.
        factors: factor of each added vector, [q], or one factor of all.
    """
    for name, tensor in to.items():
        tensor += per_row(factors, tensor) * vectors[name]


def scale(vectors: Vectors, factors: Tensor | float) -> None:
    """Multiply each vector with its factor, [q], or all with one factor, in place."""
    for tensor in vectors.values():
        tensor *= per_row(factors, tensor)


def copied(vectors: Vectors) -> Vectors:
    """Copy vectors into memory of their own."""
    return {name: tensor.clone() for name, tensor in vectors.items()}


def zeros_like(vectors: Vectors) -> Vectors:
    """Make as many zero vectors as are given."""
    return {name: torch.zeros_like(tensor) for name, tensor in vectors.items()}


def chosen(vectors: Vectors, rows: Tensor | slice) -> Vectors:
    """Select some of the q vectors by their numbers."""
    return {name: tensor[_on(rows, tensor)] for name, tensor in vectors.items()}


def put(vectors: Vectors, rows: Tensor, values: Vectors) -> None:
    """Replace some of the q vectors in place.

    Args:
        vectors: the q vectors.
        rows: numbers of the vectors to replace, int64.
        values: new vectors, in the order of `rows`.
    """
    for name, tensor in vectors.items():
        tensor[_on(rows, tensor)] = values[name]


def random_vector(like: Vectors, seed: int) -> Vectors:
    """Draw one Gaussian vector and scale it to length 1; it is equal on every device."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: torch.randn(1, *tensor.shape[1:], generator=generator).to(tensor) for name, tensor in like.items()
    }
    scale(found, norms(found).reciprocal())
    return found


def per_row(factors: Tensor | float, tensor: Tensor) -> Tensor | float:
    """Bring factors [q] into a shape that multiplies the rows of a tensor [q, …]; one factor stays a number."""
    if not isinstance(factors, Tensor):
        return factors
    return factors.to(tensor).reshape(-1, *(1,) * (tensor.dim() - 1))


def _on(rows: Tensor | slice, tensor: Tensor) -> Tensor | slice:
    return rows.to(tensor.device) if isinstance(rows, Tensor) else rows

"""Products of several vectors at once with the training loss's curvature: Hessian or Gauss–Newton matrix.

The loss is the mean over samples of each sample's mean cross-entropy over its targets, whatever a store
differentiates. Its Gauss–Newton matrix is the mean of Jᵀ (diag(p) − p pᵀ) J over targets (J: derivative of the
logits, p: the softmax of these; Schraudolph 2002), the Hessian without the curvature of the model itself, and so
positive semi-definite wherever the model stands. Neither matrix is ever formed.

A batch's forward pass is shared by all vectors: derivatives along them are taken in forward mode under
`torch.func.vmap`, and gradients of these derivatives in reverse mode, with the plain operations of
`rapidin.attribution.influence.forward_mode`.

Shape letters: q vectors · b samples · t tokens · g targets of the whole batch · v vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rapidin.attribution.curvature import parameter_vectors as algebra
from rapidin.attribution.curvature.parameter_vectors import Vectors
from rapidin.attribution.gradients import TargetBatch, TokenSample, weighted_objective
from rapidin.attribution.influence import differentiable_forwards
from rapidin.errors import ComputationError
from rapidin.support import is_out_of_memory

_WORKING_BYTES = 2**30
"""Memory that the tangents of one batch may take."""
_TANGENTS_PER_LOGIT = 32
"""Tensors of a logit's size that live at once, the rest of the model's activations included, measured with 5.5 M
parameters."""

Product = Callable[[Vectors], Vectors]
"""Multiplies q vectors with a matrix."""


class Curvature:
    """A model's second derivatives by its traced parameters, at its present parameters.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT, in evaluation mode.
        names: of the traced parameters.
        tokens_per_batch: padded tokens times vectors computed together; None for what fits into a gibibyte.

    Attributes:
        parameters: the traced ones, by name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], tokens_per_batch: int | None = None) -> None:
        self._model = model
        self.parameters: dict[str, nn.Parameter] = {name: model.get_parameter(name) for name in names}
        embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
        self._device = embeddings.device
        size = 4 * _TANGENTS_PER_LOGIT * embeddings.shape[0]
        self._tokens = tokens_per_batch or max(1, _WORKING_BYTES // size)

    def gauss_newton(self, samples: Sequence[TokenSample], vectors: Vectors) -> Vectors:
        """Multiply vectors with the Gauss–Newton matrix of the samples' mean loss.

        Raises:
            ComputationError: an operation of the model has no forward mode, or memory does not suffice.
        """

        def product(
            batch: TargetBatch, weights: Tensor, parameters: dict[str, Tensor], directions: Vectors
        ) -> Vectors:
            def logits(some: dict[str, Tensor]) -> Tensor:
                return self._logits(batch, some)

            def along(direction: Vectors) -> Tensor:
                tangents: Tensor = torch.func.jvp(logits, (parameters,), (direction,))[1]
                return tangents

            values, backwards, *_ = torch.func.vjp(logits, parameters)
            tangents = _precise(torch.func.vmap(along)(directions))  # [q, g, v]
            softmax = _precise(values).softmax(dim=-1)
            curved = softmax * (tangents - (softmax * tangents).sum(dim=-1, keepdim=True))
            curved *= weights[:, None]
            found: Vectors = torch.func.vmap(backwards)(curved.to(values.dtype))[0]
            return found

        return self._in_batches(samples, vectors, product)

    def hessian(self, samples: Sequence[TokenSample], vectors: Vectors) -> Vectors:
        """Multiply vectors with the Hessian of the samples' mean loss.

        Raises:
            ComputationError: as of `gauss_newton`.
        """

        def product(
            batch: TargetBatch, weights: Tensor, parameters: dict[str, Tensor], directions: Vectors
        ) -> Vectors:
            def loss(some: dict[str, Tensor]) -> Tensor:
                return weighted_objective(self._logits(batch, some), batch.targets, weights)

            gradient = torch.func.grad(loss)

            def along(direction: Vectors) -> Vectors:
                tangents: Vectors = torch.func.jvp(gradient, (parameters,), (direction,))[1]
                return tangents

            found: Vectors = torch.func.vmap(along)(directions)
            return found

        return self._in_batches(samples, vectors, product)

    def _in_batches(
        self,
        samples: Sequence[TokenSample],
        vectors: Vectors,
        product: Callable[[TargetBatch, Tensor, dict[str, Tensor], Vectors], Vectors],
    ) -> Vectors:
        """Add up the products of batches of about one length."""
        parameters = {name: parameter.detach() for name, parameter in self.parameters.items()}
        directions = {name: tensor.to(parameters[name].dtype) for name, tensor in vectors.items()}
        total = algebra.zeros_like(vectors)
        count = len(next(iter(vectors.values())))
        try:
            with differentiable_forwards(self._model):
                for chunk in _of_one_length(samples, self._tokens // count):
                    batch = TargetBatch.of(chunk).on(self._device)
                    weights = batch.sample_weights(len(samples))
                    algebra.add(total, product(batch, weights, parameters, directions))
        except (NotImplementedError, RuntimeError) as error:
            raise ComputationError(_reason(error)) from error
        return total

    def _logits(self, batch: TargetBatch, parameters: Mapping[str, Tensor]) -> Tensor:
        """What predicts each target, [g, v]."""
        arguments: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False, "attention_mask": batch.mask}
        logits: Tensor = torch.func.functional_call(self._model, dict(parameters), (), arguments).logits
        return batch.predicting(logits).to(batch.ids.device)


def largest_eigenvalue(product: Product, like: Vectors, steps: int, seed: int) -> float:
    """The absolutely largest eigenvalue of a symmetric matrix, from below, by power iterations.

    Args:
        product: with the matrix.
        like: vectors of the same space.
        steps: products to take.
        seed: of the vector that is begun with.
    """
    vector = algebra.random_vector(like, seed)
    length = 0.0
    for _ in range(steps):
        vector = product(vector)
        length = float(algebra.norms(vector)[0])
        if length == 0 or not torch.isfinite(torch.tensor(length)):
            break
        algebra.scale(vector, 1 / length)
    return length


def drawn(samples: int, count: int, random_numbers: random.Random) -> list[int]:
    """Positions of a random subset of samples; all where there are no more."""
    return sorted(random_numbers.sample(range(samples), min(count, samples)))


def _of_one_length(samples: Sequence[TokenSample], tokens: int) -> Iterator[list[TokenSample]]:
    """Batches of so many padded tokens at most, each sample once."""
    waiting = sorted(samples, key=lambda sample: len(sample.ids), reverse=True)
    while waiting:
        count = max(1, tokens // len(waiting[0].ids))
        yield waiting[:count]
        del waiting[:count]


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "memory does not suffice for the curvature: ask with fewer queries at a time, or a smaller --dtype"
    said = " ".join(str(error).split())[:200]
    return f"the curvature of this model cannot be computed, so it has no influence function: {said}"


def _precise(values: Tensor) -> Tensor:
    """In single precision at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

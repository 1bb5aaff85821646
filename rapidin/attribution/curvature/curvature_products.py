"""Products of several vectors at once with the curvature of the training loss.

The curvature is the Hessian of the loss, or its Gauss–Newton matrix. The loss is the mean over samples of each
sample's mean cross-entropy over its targets, even if the store's objective is another one. The Gauss–Newton matrix
is the mean over targets of Jᵀ (diag(p) − p pᵀ) J, where J is the derivative of the logits by the parameters and p
the softmax of the logits (Schraudolph 2002). It is the Hessian without the second derivatives of the model itself,
so it is positive semi-definite for any parameters. Neither matrix is ever formed.

All vectors share a batch's forward pass: derivatives along them are computed in forward mode under
`torch.func.vmap`, and gradients of these derivatives in reverse mode. The model computes with the plain operations
of `rapidin.attribution.influence.forward_mode`, because others have no forward mode.

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
from rapidin.attribution.gradients import PositionScaling, TargetBatch, TokenSample, call_with, weighted_objective
from rapidin.attribution.influence import differentiable_forwards
from rapidin.errors import ComputationError
from rapidin.support import is_out_of_memory

_WORKING_BYTES = 2**30
"""Maximum size in bytes of the tangents of one batch."""
_TANGENTS_PER_LOGIT = 32
"""Number of tensors of the logits' size that exist at once, with the model's other activations counted in.

It was measured on a model of 5.5 million parameters.
"""

Product = Callable[[Vectors], Vectors]
"""Function that multiplies q vectors with a matrix."""


class Curvature:
    """The curvature of a model's loss by its traced parameters, at the values that these have now.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT, in evaluation mode.
        names: names of the traced parameters.
        tokens_per_batch: maximum number of padded tokens, times vectors, that are computed together; None means as
            many as fit into a gibibyte.

    Attributes:
        parameters: traced parameters by name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], tokens_per_batch: int | None = None) -> None:
        self._model = model
        self.parameters: dict[str, nn.Parameter] = {name: model.get_parameter(name) for name in names}
        embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
        self._device = embeddings.device
        self._scaling = PositionScaling.of(model)
        size = 4 * _TANGENTS_PER_LOGIT * embeddings.shape[0]
        self._tokens = tokens_per_batch or max(1, _WORKING_BYTES // size)

    def gauss_newton(self, samples: Sequence[TokenSample], vectors: Vectors) -> Vectors:
        """Multiply vectors with the Gauss–Newton matrix of the samples' mean loss.

        Args:
            samples: samples that the loss is the mean of.
            vectors: the q vectors.

        Raises:
            ComputationError: An operation of the model has no forward mode, or memory does not suffice.
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

        Args:
            samples: samples that the loss is the mean of.
            vectors: the q vectors.

        Raises:
            ComputationError: An operation of the model has no forward mode, or memory does not suffice.
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
        """Add up the products of batches whose samples have about the same length.

        Args:
            samples: samples that the loss is the mean of.
            vectors: the q vectors.
            product: function that multiplies vectors for one batch, given the batch, the weights of its targets
                [g], the parameters and the vectors.
        """
        parameters = {name: parameter.detach() for name, parameter in self.parameters.items()}
        directions = {name: tensor.to(parameters[name].dtype) for name, tensor in vectors.items()}
        total = algebra.zeros_like(vectors)
        count = len(next(iter(vectors.values())))
        try:
            with differentiable_forwards(self._model):
                for chunk in self._batches(samples, self._tokens // count):
                    batch = TargetBatch.of(chunk).on(self._device)
                    weights = batch.sample_weights(len(samples))
                    algebra.add(total, product(batch, weights, parameters, directions))
        except (NotImplementedError, RuntimeError) as error:
            raise ComputationError(_reason(error)) from error
        return total

    def _batches(self, samples: Sequence[TokenSample], tokens: int) -> Iterator[list[TokenSample]]:
        """Divide samples into batches of at most `tokens` padded tokens, or of one sample, by length."""
        waiting = sorted(samples, key=lambda sample: len(sample.ids), reverse=True)
        for positions in self._scaling.batches(waiting):
            alike = [waiting[position] for position in positions]
            while alike:
                count = max(1, tokens // len(alike[0].ids))
                yield alike[:count]
                del alike[:count]

    def _logits(self, batch: TargetBatch, parameters: Mapping[str, Tensor]) -> Tensor:
        """Compute the logits that predict each target, [g, v], with the given parameters."""
        arguments: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False, "attention_mask": batch.mask}
        logits: Tensor = call_with(self._model, parameters, arguments).logits
        return batch.predicting(logits).to(batch.ids.device)


def largest_eigenvalue(product: Product, like: Vectors, steps: int, seed: int) -> float:
    """Estimate the largest absolute eigenvalue of a symmetric matrix by power iterations, from below.

    Args:
        product: function that multiplies vectors with the matrix.
        like: vectors of the space that the matrix acts on; their values do not matter.
        steps: number of power iterations.
        seed: seed of the random vector that the iterations begin with.
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
    """Draw the positions of a random subset of samples.

    Args:
        samples: number of samples to draw from.
        count: number of samples to draw; if there are not as many, all are taken.
        random_numbers: source of randomness.

    Returns:
        Positions in [0, `samples`), ascending.
    """
    return sorted(random_numbers.sample(range(samples), min(count, samples)))


def _reason(error: Exception) -> str:
    """Say why a product could not be computed, and what to do."""
    if is_out_of_memory(error):
        return "memory does not suffice for the curvature: ask with fewer queries at a time, or a smaller --dtype"
    said = " ".join(str(error).split())[:200]
    return f"the curvature of this model cannot be computed, so it has no influence function: {said}"


def _precise(values: Tensor) -> Tensor:
    """Convert values to float32, unless their type is more precise."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

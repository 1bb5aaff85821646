"""Per-sample gradients of a causal language model, in padded batches where the model allows it.

The engine composes two sources of gradients (`gradient_sources`): a fast one, which takes batches, and plain
autograd, which takes one sample and is always right. It hands each traced parameter's `ParameterGradient` to an
accumulator as soon as it is complete, and knows nothing of projections or stores.

Before the first gradient of the fast source is used, the engine *tries* that source on made-up samples. If it
disagrees with plain autograd, the engine uses autograd only. So an architecture that uses its parameters in a
way that the hooks cannot see costs time, and nothing else. The trial depends on the model alone. Therefore
which source computes a sample, and with it the last bits of its gradient, does not depend on the samples before
it.

Some models compute long inputs in another way than the trial's short ones. If the configuration says that a
model's positions depend on the length of its input, the engine computes only those samples together that have
the same positions together as alone (`position_scaling`). Whatever else there may be, a watch over real batches
ends with an error (`source_checks`).

Shape letters: b batch · L parameter tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.capture import NotBatchedError
from rapidin.attribution.gradients.contributions import ParameterGradient
from rapidin.attribution.gradients.gradient_sources import AutogradGradients, GradientSource, HookedGradients
from rapidin.attribution.gradients.objectives import Differentiated, TokenSample
from rapidin.attribution.gradients.position_scaling import PositionScaling, forget_longer_inputs
from rapidin.attribution.gradients.source_checks import BatchWatch, SourceTrial, named_lengths
from rapidin.errors import ModelError

logger = logging.getLogger(__name__)


class Accumulator(Protocol):
    """Takes the gradients of a batch's samples, one parameter tensor after another, in any order of tensors."""

    def consume(self, gradient: ParameterGradient) -> None:
        """Take one parameter tensor's gradients for every sample of the batch."""

    def result(self) -> Tensor:
        """Return what was made of the gradients, one row per sample; this is called once, at the end."""


class SumOverSamples(Protocol):
    """Takes the gradients of some of a batch's samples at a time, and adds them up over the samples."""

    def consume(self, positions: Sequence[int], gradient: ParameterGradient) -> None:
        """Take one parameter tensor's gradients for the samples at some positions of the batch."""


Sum = TypeVar("Sum", bound=SumOverSamples)


class GradientEngine:
    """Forward and backward passes over one model.

    While the engine is open, all parameters of the model have ``requires_grad=False``; `close` puts their own
    values back. The model must be in evaluation mode.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT.
        names: names of the traced parameters, in the order of the flattened gradient.
        fast: function that makes the source that is used if the trial finds it right.
        plain: function that makes the source that is always right and takes one sample at a time.

    Raises:
        ModelError: A name is not a parameter of the model.

    Attributes:
        device: device of the model's first layer.
        half: whether activations are in half precision (float16), in which gradients easily overflow or underflow;
            then losses are scaled, see `accumulate`.
        precision: coarsest type of the model's weights, and so of its gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        fast: Callable[[nn.Module, Sequence[str]], GradientSource] = HookedGradients,
        plain: Callable[[nn.Module, Sequence[str]], GradientSource] = AutogradGradients,
    ) -> None:
        parameters = dict(model.named_parameters())
        for name in names:
            if name not in parameters:
                raise ModelError(f"the model has no parameter {name!r}, which this store traces")
        self._before = [(parameter, parameter.requires_grad) for parameter in parameters.values()]
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
        self.device: torch.device = embeddings.device
        # An adapter is often in float32 and its base in low precision; then the base's activations are the coarse
        # ones.
        types = {parameter.dtype for parameter in parameters.values()}
        self.half = torch.float16 in types
        low = torch.bfloat16 if torch.bfloat16 in types else torch.float16
        self.precision = low if low in types else parameters[names[0]].dtype
        self._fast = fast(model, names)
        self._plain = plain(model, names)
        self._scaling = PositionScaling.of(model)
        self._handles = forget_longer_inputs(model)
        self._trial = SourceTrial(
            model, self._fast, self._plain, self._scaling, len(names), self.half, self.precision
        )
        self._watch = BatchWatch(self._plain, len(names), self.precision, named_lengths(model))
        self._fast_is_right: bool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks and put every parameter's ``requires_grad`` back."""
        self._fast.close()
        self._plain.close()
        for handle in self._handles:
            handle.remove()
        for parameter, required in self._before:
            parameter.requires_grad_(required)

    @property
    def batched(self) -> bool:
        """Whether the fast source is used; the trial decides it when this is first read."""
        if self._fast_is_right is None:
            reason = self._trial.objection()
            self._fast_is_right = reason is None
            if reason is not None:
                logger.info("samples are differentiated one by one: %s", reason)
        return self._fast_is_right

    def accumulate(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[int], Accumulator],
        objective: Differentiated,
        token_weight: float | None = None,
        plainly: bool = False,
    ) -> Tensor:
        """Compute the gradient of every sample's mean objective over its targets and accumulate it.

        Args:
            samples: b samples, each with at least one target.
            new: function that makes an empty accumulator for a number of samples.
            objective: quantity of a target token that is differentiated; comments say "loss" for it.
            token_weight: factor of a sample's *summed* losses, which are differentiated instead of their mean, so
                that in half precision the gradients of long samples do not underflow (loss scaling, Micikevicius
                et al. 2018); None means the mean.
            plainly: whether to use plain autograd, which is as fast as the hooks if whole gradients of single
                samples are wanted.

        Returns:
            The accumulators' results, one row per sample, in the order of `samples`.

        Raises:
            ModelError: A sample's gradient in a batch is not that of the sample alone, see `BatchWatch`; or not
                even plain autograd gives the model's gradients, see `SourceTrial`.
        """
        if self.batched and not plainly:
            try:
                return self._together(samples, new, objective, token_weight)
            except NotBatchedError as reason:
                logger.info("a batch of %d is differentiated one by one: %s", len(samples), reason)
        return self._one_by_one(samples, new, objective, token_weight)

    def added(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[], Sum],
        objective: Differentiated,
        token_weight: float,
    ) -> Sum:
        """Compute the gradient of every sample's summed objective over its targets, and add them up.

        Args:
            samples: b samples, each with at least one target.
            new: function that makes an empty sum; if the samples must be computed one by one, it is called again.
            objective: quantity of a target token that is differentiated.
            token_weight: weight of every target token.

        Returns:
            The last sum that `new` made, with the gradients of all samples.

        Raises:
            ModelError: A sample's gradient in a batch is not that of the sample alone, see `BatchWatch`.
        """
        if self.batched:
            found = new()
            try:
                for batch in self._scaling.batches(samples):
                    together = [samples[position] for position in batch]
                    self._watch.emit(self._fast, together, partial(found.consume, batch), objective, token_weight)
            except NotBatchedError as reason:
                logger.info("a batch of %d is differentiated one by one: %s", len(samples), reason)
            else:
                return found
        found = new()
        for position, sample in enumerate(samples):
            self._plain.emit([sample], partial(found.consume, [position]), objective, token_weight)
        return found

    def same_positions(self, length: int, other: int) -> bool:
        """Tell whether the model gives the tokens that inputs of two lengths share the same positions."""
        return self._scaling.group(length) == self._scaling.group(other)

    def _together(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[int], Accumulator],
        objective: Differentiated,
        token_weight: float | None,
    ) -> Tensor:
        """Accumulate samples by the fast source, together if they get the positions that they have alone."""
        batches = self._scaling.batches(samples)
        results = []
        for batch in batches:
            accumulator = new(len(batch))
            together = [samples[position] for position in batch]
            self._watch.emit(self._fast, together, accumulator.consume, objective, token_weight)
            results.append(accumulator.result())
        if len(results) == 1:
            return results[0]
        gathered = torch.cat(results)
        order = torch.tensor([position for batch in batches for position in batch]).argsort()
        return gathered[order.to(gathered.device)]

    def _one_by_one(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[int], Accumulator],
        objective: Differentiated,
        token_weight: float | None,
    ) -> Tensor:
        """Accumulate samples by plain autograd."""
        results = []
        for sample in samples:
            accumulator = new(1)
            self._plain.emit([sample], accumulator.consume, objective, token_weight)
            results.append(accumulator.result())
        return torch.cat(results)

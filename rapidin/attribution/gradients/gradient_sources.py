"""Sources of per-sample gradients: the seam between a model and everything that uses its gradients.

`HookedGradients` computes a batch in one forward and backward pass and never forms a weight's gradient.
`AutogradGradients` computes one sample at a time by plain autograd, which is slower and always right. Any further
source must implement `GradientSource` and pass tests/attribution/gradients/source_conformance.py.

Shape letters: b batch · t tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.capture import Capture, Consumer
from rapidin.attribution.gradients.contributions import DenseGradient, ParameterGradient, as_matrix
from rapidin.attribution.gradients.objectives import Differentiated, TargetBatch, TokenSample, weighted_values
from rapidin.support import inner_model


class GradientSource(Protocol):
    """Emits the gradients of a model's traced parameters, sample by sample.

    A source is made for a model and the names of its traced parameters. All of the model's parameters have
    ``requires_grad=False`` between and before its calls.
    """

    @property
    def takes_batches(self) -> bool:
        """Whether the source takes several samples at a time; otherwise it takes one."""

    @property
    def unsupported(self) -> Sequence[str]:
        """Names of traced parameters that the source cannot serve; it must not be used if there are any."""

    def emit(
        self,
        samples: Sequence[TokenSample],
        consume: Consumer,
        objective: Differentiated,
        token_weight: float | None = None,
    ) -> None:
        """Hand the gradients of every sample's mean objective to a consumer, one parameter tensor after another.

        Args:
            samples: b samples, each with at least one target; one sample if the source takes no batches.
            consume: function called once for each parameter tensor that has a gradient, in any order.
            objective: quantity of a target token that is differentiated.
            token_weight: weight of every target token; None means that a sample's tokens share a weight of 1.

        Raises:
            NotBatchedError: The model rearranges these samples, so that they must be computed one by one.
        """

    def close(self) -> None:
        """Leave the model as it was."""


class HookedGradients:
    """Computes a batch in one pass, with hooks that catch the factors of every gradient; see `capture`.

    Padding is on the right, where a causal model's real tokens cannot see it. So the model gets no mask: with a
    mask, attention could not use its fastest implementation and would need t² numbers of memory. If this is wrong
    for a model, the engine's trial detects it, because `AutogradGradients` passes a mask.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT.
        names: names of the traced parameters, in the order of the flattened gradient.
    """

    takes_batches = True

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._model = model
        self._takes_positions = "position_ids" in inspect.signature(inner_model(model).forward).parameters
        self._capture = Capture(model, names)

    @property
    def unsupported(self) -> Sequence[str]:
        """See `GradientSource.unsupported`."""
        return self._capture.unsupported

    def emit(
        self,
        samples: Sequence[TokenSample],
        consume: Consumer,
        objective: Differentiated,
        token_weight: float | None = None,
    ) -> None:
        """See `GradientSource.emit`."""
        batch = TargetBatch.of(samples)
        extra = {}
        if self._takes_positions:
            # Positions are given for each sample, so that learned position embeddings have a batch dimension, too.
            extra["position_ids"] = torch.arange(batch.ids.shape[1]).expand(batch.ids.shape).contiguous()
        self._capture.start(len(samples), consume)
        try:
            with torch.enable_grad():
                _loss(self._model, batch, extra, objective, token_weight).backward()
            self._capture.finish()
        finally:
            self._capture.abort()

    def close(self) -> None:
        """See `GradientSource.close`."""
        self._capture.close()


class AutogradGradients:
    """Computes one sample by plain autograd, without padding and with a mask.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT.
        names: names of the traced parameters, in the order of the flattened gradient.
    """

    takes_batches = False
    unsupported: Sequence[str] = ()

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._model = model
        self._traced = [model.get_parameter(name) for name in names]

    def emit(
        self,
        samples: Sequence[TokenSample],
        consume: Consumer,
        objective: Differentiated,
        token_weight: float | None = None,
    ) -> None:
        """See `GradientSource.emit`."""
        if len(samples) != 1:
            raise ValueError(f"plain autograd takes one sample at a time, not {len(samples)}")
        batch = TargetBatch.of(samples)

        def take(position: int, parameter: nn.Parameter) -> None:
            if parameter.grad is not None:
                shape = tuple(parameter.shape)
                values = parameter.grad.detach().reshape(1, *as_matrix(shape))
                consume(ParameterGradient(position, 1, shape, [DenseGradient(values)]))
                parameter.grad = None

        handles = []
        for position, parameter in enumerate(self._traced):
            parameter.requires_grad_(True)
            # torch calls this once in a backward pass, when all uses of the parameter have added up. The gradient
            # is freed there, so that memory holds the gradient of one parameter, not of the whole model.
            handles.append(
                parameter.register_post_accumulate_grad_hook(
                    lambda parameter, position=position: take(position, parameter)
                )
            )
        try:
            with torch.enable_grad():
                loss = _loss(self._model, batch, {"attention_mask": batch.mask}, objective, token_weight)
                loss.backward()
        finally:
            for handle in handles:
                handle.remove()
            for parameter in self._traced:
                parameter.grad = None
                parameter.requires_grad_(False)

    def close(self) -> None:
        """See `GradientSource.close`; `emit` leaves nothing behind that would have to be removed."""


def _loss(
    model: nn.Module,
    batch: TargetBatch,
    arguments: dict[str, Tensor],
    objective: Differentiated,
    token_weight: float | None,
) -> Tensor:
    """Add up the samples' mean objectives; the gradient of the sum has a part for each sample.

    Args:
        model: the model.
        batch: the padded samples.
        arguments: arguments of the model beside the token ids, by name.
        objective: quantity of a target token that is differentiated.
        token_weight: weight of every target token; None means that a sample's tokens share a weight of 1.
    """
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    given = {name: value.to(device) for name, value in {"input_ids": batch.ids, **arguments}.items()}
    logits: Tensor = model(**given, use_cache=False).logits
    weights = batch.sample_weights() if token_weight is None else torch.full(batch.rows.shape, token_weight)
    return weighted_values(batch.predicting(logits), batch, weights, objective)

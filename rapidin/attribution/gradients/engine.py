"""Per-sample gradients of a causal language model, parameter tensor by parameter tensor, in padded batches.

The engine runs forward and backward and hands each traced parameter's `ParameterGradient` to an accumulator as
soon as it is complete; it knows nothing of projections or stores. Two ways lead there:

* batched: one pass over all samples, weight gradients never formed by autograd (`capture`);
* one by one: plain autograd, for models with a parameter that the hooks cannot serve. Slower, always right.

Before the first batch's result is used, two of its samples are computed one by one as well and compared, parameter
tensor by parameter tensor; where the two ways disagree the engine stays with the slow one. So an architecture that
uses its parameters in a way that the hooks cannot see costs time, never correctness.

Shape letters: b batch · t tokens.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.agreement import TensorDigests, disagreement
from rapidin.attribution.gradients.capture import Capture, NotBatchedError
from rapidin.attribution.gradients.contributions import DenseGradient, ParameterGradient, as_matrix
from rapidin.attribution.gradients.objectives import token_objectives
from rapidin.errors import ModelError
from rapidin.settings import Objective
from rapidin.support import inner_model, is_out_of_memory

logger = logging.getLogger(__name__)


class TokenSample(Protocol):
    """What the engine needs of a sample: token ids, and which of them are targets of the loss."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids, [t]."""

    @property
    def targets(self) -> Sequence[bool]:
        """Whether each token's own loss counts, [t]; the first token's never does."""


class NamedSample(TokenSample, Protocol):
    """A sample that errors can name."""

    @property
    def id(self) -> str:
        """The sample's id."""


class _Beginning:
    """The first half of a sample, two tokens at least, all of it targets."""

    def __init__(self, sample: TokenSample) -> None:
        self.ids = sample.ids[: max(2, len(sample.ids) // 2)]
        self.targets = [False] + [True] * (len(self.ids) - 1)


class Accumulator(Protocol):
    """Takes the gradients of a batch's samples, one parameter tensor after another, in any order."""

    def consume(self, gradient: ParameterGradient) -> None:
        """Take one parameter tensor's gradients for every sample of the batch."""

    def result(self) -> Tensor:
        """Return what was made of them, one row per sample; called once, at the end."""


class GradientEngine:
    """Forward and backward passes over one model.

    The model's parameters are switched to ``requires_grad=False`` while the engine is open and put back by
    `close`; the model must be in evaluation mode.

    Args:
        model: a causal language model of transformers, or one wrapped by PEFT.
        names: of the traced parameters, in the order of the flattened gradient.
        objective: what of a target token is differentiated; "loss" stands for it everywhere below.

    Raises:
        ModelError: a name is not a parameter of the model.

    Attributes:
        batched: whether samples are computed together.
        half: whether activations are in half precision, whose range a gradient easily leaves at either end; then
            losses are scaled, see `accumulate`.
        objective: what of a target token is differentiated.
        precision: the coarsest type of the model's weights, and so of its gradients.
        device: where the model's first layer is.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], objective: Objective = "loss") -> None:
        parameters = dict(model.named_parameters())
        for name in names:
            if name not in parameters:
                raise ModelError(f"the model has no parameter {name!r}, which this store traces")
        self._model = model
        self.objective = objective
        self._traced = [parameters[name] for name in names]
        self._before = [(parameter, parameter.requires_grad) for parameter in parameters.values()]
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        self.device: torch.device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        # Adapters often stand in float32 on a base in low precision, whose activations then are the coarse ones.
        types = {parameter.dtype for parameter in parameters.values()}
        self.half = torch.float16 in types
        low = torch.bfloat16 if torch.bfloat16 in types else torch.float16
        self.precision = low if low in types else self._traced[0].dtype
        self._takes_positions = "position_ids" in inspect.signature(inner_model(model).forward).parameters
        self._capture = Capture(model, names)
        self.batched = not self._capture.unsupported
        self._checked = False
        self._checked_alone = False
        self._token_weight: float | None = None  # of the pass that is running
        if not self.batched:
            some = ", ".join(self._capture.unsupported[:3])
            logger.info("samples are differentiated one by one because of %s", some)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks and put every parameter's ``requires_grad`` back."""
        self._capture.close()
        for parameter, required in self._before:
            parameter.requires_grad_(required)

    def accumulate(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[int], Accumulator],
        token_weight: float | None = None,
        plainly: bool = False,
    ) -> Tensor:
        """Compute the gradient of every sample's mean loss over its targets and accumulate it.

        Args:
            samples: b of them; each has at least one target.
            new: makes an empty accumulator for a number of samples.
            token_weight: differentiate the *sum* of a sample's losses times this instead, so that in half
                precision the gradients of long samples do not underflow (loss scaling, Micikevicius et al. 2018).
            plainly: by plain autograd one by one, as fast where whole gradients of single samples are wanted.

        Returns:
            The accumulators' results, one row per sample, in the order of `samples`.
        """
        self._token_weight = token_weight
        if not plainly and self._may_batch(samples):
            try:
                return self._together(samples, new)
            except NotBatchedError as reason:
                self._stay_slow(str(reason))
        return torch.cat([self._alone(sample, new) for sample in samples])

    def _may_batch(self, samples: Sequence[TokenSample]) -> bool:
        """Whether the batched way is known to be right for such a batch, after a check where it is not yet."""
        known = self._checked or (self._checked_alone and len(samples) == 1)
        return self.batched and (known or self._check(samples))

    def _check(self, samples: Sequence[TokenSample]) -> bool:
        """Compare the batched way with plain autograd on the shortest and the longest sample.

        Returns:
            Whether the batched way may be used for these samples. A batch of one decides for batches of one
            only; after one without a finite gradient the next batch is checked again.
        """
        by_length = sorted(samples, key=lambda sample: len(sample.ids))
        chosen = by_length if len(samples) == 1 else [by_length[0], by_length[-1]]
        if len(samples) > 1 and len(chosen[0].ids) > len(chosen[1].ids) // 2:
            chosen[0] = _Beginning(chosen[0])  # so that much padding is put to the test, too
        padded = len(chosen[0].ids) < len(chosen[-1].ids)

        def new(batch: int) -> Accumulator:
            return TensorDigests(batch, len(self._traced))

        slow = torch.cat([self._alone(sample, new) for sample in chosen])
        try:
            fast = self._together(chosen, new)
        except (NotBatchedError, RuntimeError) as reason:
            if is_out_of_memory(reason):
                raise
            self._stay_slow(str(reason))
            return False
        found = disagreement(fast, slow, self.precision)
        if found is None:
            return False
        if found > 1:
            self._stay_slow(
                f"a batch's gradients differ from a single sample's, {found:.2g} × what rounding explains"
            )
            return False
        self._checked, self._checked_alone = padded, True
        return True

    def _stay_slow(self, reason: str) -> None:
        logger.info("samples are differentiated one by one: %s", reason)
        self.batched = False

    def _together(self, samples: Sequence[TokenSample], new: Callable[[int], Accumulator]) -> Tensor:
        accumulator = new(len(samples))
        self._capture.start(len(samples), accumulator.consume)
        try:
            with torch.enable_grad():
                self._loss(samples).backward()
            self._capture.finish()
        finally:
            self._capture.abort()
        return accumulator.result()

    def _alone(self, sample: TokenSample, new: Callable[[int], Accumulator]) -> Tensor:
        accumulator = new(1)

        def consume(position: int, parameter: nn.Parameter) -> None:
            if parameter.grad is not None:
                shape = tuple(parameter.shape)
                values = parameter.grad.detach().reshape(1, *as_matrix(shape))
                accumulator.consume(ParameterGradient(position, 1, shape, [DenseGradient(values)]))
                parameter.grad = None

        handles = []
        for position, parameter in enumerate(self._traced):
            parameter.requires_grad_(True)
            # Called once per backward pass, when all uses of the parameter have added up; freeing the gradient
            # there keeps one parameter's gradient in memory, not the model's.
            handles.append(
                parameter.register_post_accumulate_grad_hook(
                    lambda parameter, position=position: consume(position, parameter)
                )
            )
        try:
            with torch.enable_grad():
                self._loss([sample], plainly=True).backward()
        finally:
            for handle in handles:
                handle.remove()
            for parameter in self._traced:
                parameter.grad = None
                parameter.requires_grad_(False)
        return accumulator.result()

    def _loss(self, samples: Sequence[TokenSample], plainly: bool = False) -> Tensor:
        """Sum over samples of the mean cross-entropy of their targets; samples do not share a gradient.

        Padding stands on the right, where a causal model's real tokens cannot see it. So the model gets no mask,
        with which attention cannot take its fastest way and needs t² numbers of memory. A model for which
        this is wrong is found out by the check, whose single samples are given `plainly`, as anyone would.
        """
        length = max(len(sample.ids) for sample in samples)
        shape = (len(samples), length)
        ids = torch.zeros(shape, dtype=torch.int64)
        weights = torch.zeros(shape, dtype=torch.float32)
        for row, sample in enumerate(samples):
            ids[row, : len(sample.ids)] = torch.as_tensor(sample.ids)
            targets = torch.as_tensor(sample.targets, dtype=torch.float32)
            weight = self._token_weight or 1 / targets.sum()
            weights[row, : len(sample.ids)] = targets * weight
        arguments = {"input_ids": ids}
        if plainly:
            arguments["attention_mask"] = torch.ones(shape, dtype=torch.int64)
        elif self._takes_positions:
            # Given explicitly for each sample, so that learned position embeddings have a batch dimension too.
            arguments["position_ids"] = torch.arange(length).expand(shape).contiguous()
        arguments = {name: value.to(self.device) for name, value in arguments.items()}
        logits: Tensor = self._model(**arguments, use_cache=False).logits
        # Token i is predicted by the logits at i − 1. One indexing instead of slice and mask: each has a backward
        # step that writes zeros for all logits.
        predicted = weights[:, 1:].to(logits.device)
        counted = torch.nonzero(predicted, as_tuple=True)
        losses = token_objectives(logits[counted], ids[:, 1:].to(logits.device)[counted], self.objective)
        return (losses * predicted[counted]).sum()

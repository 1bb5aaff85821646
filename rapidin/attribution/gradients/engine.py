"""Per-sample gradients of a causal language model, in padded batches where the model allows it.

The engine composes two sources of gradients (`gradient_sources`): a fast one, which takes batches, and plain
autograd, which takes one sample and is always right. It hands each traced parameter's `ParameterGradient` to an
accumulator as soon as it is complete, and knows nothing of projections or stores.

Before the first gradient of the fast source is used, the engine *tries* that source: both sources compute made-up
samples (a long and a short one together, and the long one alone), and the results are compared, parameter tensor
by parameter tensor. If the two disagree, the engine uses autograd only. So an architecture that uses its
parameters in a way that the hooks cannot see costs time, never correctness. The trial depends on the model alone.
Therefore which source computes a sample, and with it the last bits of its gradient, does not depend on the samples
before it.

Shape letters: b batch · L parameter tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.agreement import TensorDigests, disagreement
from rapidin.attribution.gradients.capture import NotBatchedError
from rapidin.attribution.gradients.contributions import ParameterGradient
from rapidin.attribution.gradients.gradient_sources import AutogradGradients, GradientSource, HookedGradients
from rapidin.attribution.gradients.objectives import Differentiated, TokenSample
from rapidin.errors import ModelError
from rapidin.support import is_out_of_memory

logger = logging.getLogger(__name__)

_TRIAL_TOKENS = 32
"""Number of tokens of the trial's long sample; the short one has a quarter, so that it gets much padding."""
_TRIALS = 3
"""Number of pairs of made-up samples that are tried; if none has finite gradients, autograd is used."""
_TRIAL_WEIGHTS = (1.0, 1 / 1024, 64.0)
"""Weights of a token's loss at which a model in half precision is tried, until one gives finite gradients."""


class Accumulator(Protocol):
    """Takes the gradients of a batch's samples, one parameter tensor after another, in any order of tensors."""

    def consume(self, gradient: ParameterGradient) -> None:
        """Take one parameter tensor's gradients for every sample of the batch."""

    def result(self) -> Tensor:
        """Return what was made of the gradients, one row per sample; this is called once, at the end."""


@dataclass(frozen=True, slots=True)
class _TrialSample:
    """A made-up sample; every token but the first is a target."""

    ids: Sequence[int]

    @property
    def targets(self) -> Sequence[bool]:
        return [False] + [True] * (len(self.ids) - 1)


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
        self._tensors = len(names)
        self._before = [(parameter, parameter.requires_grad) for parameter in parameters.values()]
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
        self.device: torch.device = embeddings.device
        self._vocabulary = _vocabulary(model, embeddings)
        self._context = _context_length(model)
        # An adapter is often in float32 and its base in low precision; then the base's activations are the coarse
        # ones.
        types = {parameter.dtype for parameter in parameters.values()}
        self.half = torch.float16 in types
        low = torch.bfloat16 if torch.bfloat16 in types else torch.float16
        self.precision = low if low in types else parameters[names[0]].dtype
        self._fast = fast(model, names)
        self._plain = plain(model, names)
        self._fast_is_right: bool | None = None
        self._watched = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks and put every parameter's ``requires_grad`` back."""
        self._fast.close()
        self._plain.close()
        for parameter, required in self._before:
            parameter.requires_grad_(required)

    @property
    def batched(self) -> bool:
        """Whether the fast source is used; the trial decides it when this is first read."""
        if self._fast_is_right is None:
            reason = self._objection()
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
        """
        if not plainly and self.batched:
            try:
                return self._together(samples, new, objective, token_weight)
            except NotBatchedError as reason:
                logger.info("a batch of %d is differentiated one by one: %s", len(samples), reason)
        return torch.cat([_accumulated(self._plain, [one], new, objective, token_weight) for one in samples])

    def _together(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[int], Accumulator],
        objective: Differentiated,
        token_weight: float | None,
    ) -> Tensor:
        """Accumulate a batch by the fast source; in the first batch one sample is compared with plain autograd."""
        if self._watched:
            return _accumulated(self._fast, samples, new, objective, token_weight)
        shortest = min(range(len(samples)), key=lambda position: len(samples[position].ids))
        accumulator, digests = new(len(samples)), self._digests(1)

        def consume(gradient: ParameterGradient) -> None:
            digests.consume(gradient.of_sample(shortest))
            accumulator.consume(gradient)

        self._fast.emit(samples, consume, objective, token_weight)
        self._watched = True
        self._warn_of_disagreement(samples[shortest], digests.result(), objective, token_weight)
        return accumulator.result()

    def _warn_of_disagreement(
        self, sample: TokenSample, fast: Tensor, objective: Differentiated, token_weight: float | None
    ) -> None:
        """Compare a real sample of the first batch with plain autograd, and log a warning if the two disagree.

        The trial is short, so it cannot see an error that occurs only from a certain length on. The warning
        changes nothing, because results must not depend on which batch came first.
        """
        try:
            slow = _accumulated(self._plain, [sample], self._digests, objective, token_weight)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.debug("there is no memory to compare a sample of the first batch with plain autograd")
            return
        found = disagreement(fast, slow, self.precision)
        if found is not None and found > 1:
            logger.warning(
                "in a batch a sample's gradient differs from that of the sample alone, %.2g times as much as "
                "rounding explains: with --tokens-per-batch 1 every sample is computed alone",
                found,
            )

    def _objection(self) -> str | None:
        """Find out why the fast source must not be used; None if it may."""
        if self._fast.unsupported:
            return f"no fast way to the gradients of {', '.join(self._fast.unsupported[:3])}"
        for samples, token_weight in self._trials():
            try:
                slow = torch.cat(
                    [_accumulated(self._plain, [one], self._digests, "loss", token_weight) for one in samples]
                )
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                if is_out_of_memory(error):
                    raise
                logger.debug("the model fails on made-up tokens", exc_info=True)
                continue
            if not (torch.isfinite(slow).all() and (slow[:, :, 0] > 0).any(dim=1).all()):
                continue
            try:
                # The long sample is computed beside the short one, and then alone, because a model may treat a
                # batch of one in another way.
                fast = [
                    _accumulated(self._fast, some, self._digests, "loss", token_weight)
                    for some in (samples, samples[:1])
                ]
            except (NotBatchedError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                return str(error)
            found = disagreement(torch.cat(fast), torch.cat([slow, slow[:1]]), self.precision)
            if found is not None and found > 1:
                return f"a batch's gradients differ from a single sample's, {found:.2g} × what rounding explains"
            return None
        return "the gradients of made-up tokens are zero or not finite"

    def _trials(self) -> Iterator[tuple[list[_TrialSample], float | None]]:
        """Make up pairs of a long and a short sample, with weights of tokens; they depend on the model alone."""
        long = max(2, min(_TRIAL_TOKENS, self._context))
        lengths = (long, max(2, long // 4))
        for seed in range(_TRIALS):
            generator = torch.Generator().manual_seed(seed)
            samples = [
                _TrialSample(torch.randint(self._vocabulary, (length,), generator=generator).tolist())
                for length in lengths
            ]
            for weight in _TRIAL_WEIGHTS if self.half else (None,):
                yield samples, weight

    def _digests(self, batch: int) -> TensorDigests:
        return TensorDigests(batch, self._tensors)


def _accumulated(
    source: GradientSource,
    samples: Sequence[TokenSample],
    new: Callable[[int], Accumulator],
    objective: Differentiated,
    token_weight: float | None,
) -> Tensor:
    """Accumulate the gradients that a source emits for samples."""
    accumulator = new(len(samples))
    source.emit(samples, accumulator.consume, objective, token_weight)
    return accumulator.result()


def _vocabulary(model: nn.Module, embeddings: Tensor) -> int:
    """Find the number of token ids that the model both takes and predicts; some embed more than they predict."""
    head = getattr(model.get_output_embeddings(), "weight", None)  # type: ignore[operator]
    return int(embeddings.shape[0] if head is None else min(embeddings.shape[0], head.shape[0]))


def _context_length(model: nn.Module) -> int:
    """Find the number of tokens that the model can take; if its configuration does not say, the trial's length."""
    given = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return given if isinstance(given, int) and given > 0 else _TRIAL_TOKENS

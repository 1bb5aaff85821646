"""Checks of a fast source of gradients against plain autograd.

`SourceTrial` compares the two before the first gradient of the fast source is used. Both compute made-up samples
(a long and a short one together, and the long one alone), and the results are compared, parameter tensor by
parameter tensor. The trial depends on the model alone. Its samples are short, because one-prompt searches wait
for it. It also makes sure that plain autograd itself can be trusted (`gradient_paths`).

`BatchWatch` finds models that compute long inputs in another way. It compares a sample of the first real batch, of
every later one that is much longer or has much more padding than those before it, of the first one beyond each
length that the model's configuration names, and now and then of one that is like the others.

Shape letters: b batch · L parameter tensors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.agreement import TensorDigests, disagreement
from rapidin.attribution.gradients.capture import Consumer, NotBatchedError
from rapidin.attribution.gradients.contributions import ParameterGradient
from rapidin.attribution.gradients.gradient_paths import PathWatch, answer_something, may_change_state
from rapidin.attribution.gradients.gradient_sources import GradientSource
from rapidin.attribution.gradients.objectives import Differentiated, TokenSample
from rapidin.attribution.gradients.position_scaling import PositionScaling
from rapidin.errors import ModelError
from rapidin.support import context_length, inner_model, is_out_of_memory

logger = logging.getLogger(__name__)

_TRIAL_TOKENS = 32
"""Number of tokens of the trial's long sample; the short one has a quarter, so that it gets much padding."""
_TRIALS = 3
"""Number of pairs of made-up samples that are tried; if none has finite gradients, autograd is used."""
_TRIAL_WEIGHTS = (1.0, 1 / 1024, 64.0)
"""Weights of a token's loss at which a model in half precision is tried, until one gives finite gradients."""
_LOW_PRECISION_LIMIT = 2.0
"""Disagreement, in tolerances, from which a real sample in low precision is looked at more closely.

If the model is nearly certain of a sample, its gradient in low precision is mostly rounding error: a disagreement
of 1.9 was measured on a model that had learnt its samples by heart.
"""
_BETWEEN_DRAWN = 8
"""Factor between the numbers of batches that are compared although they are like those before them."""
_BEYOND_ROUNDING = 4.0
"""Number of times that a sample's disagreement in a batch must be as large as alone to be none of rounding."""


@dataclass(frozen=True, slots=True)
class _TrialSample:
    """A made-up sample; every token but the first is a target."""

    ids: Sequence[int]

    @property
    def targets(self) -> Sequence[bool]:
        return [False] + [True] * (len(self.ids) - 1)


class SourceTrial:
    """Tries a fast source on made-up samples.

    Args:
        model: the model of both sources.
        fast: source that takes batches.
        plain: source that takes one sample and is always right.
        scaling: scaling of the model's positions, which says what may be computed together.
        tensors: number of traced parameter tensors L.
        half: whether the model computes in half precision, in which gradients easily overflow or underflow.
        precision: coarsest type of the model's weights.
    """

    def __init__(
        self,
        model: nn.Module,
        fast: GradientSource,
        plain: GradientSource,
        scaling: PositionScaling,
        tensors: int,
        half: bool,
        precision: torch.dtype,
    ) -> None:
        self._fast, self._plain = fast, plain
        self._model = model
        self._vocabulary = _vocabulary(model)
        self._context = _context_length(model)
        self._scaling = scaling
        self._tensors = tensors
        self._half = half
        self._precision = precision

    def objection(self) -> str | None:
        """Find out why the fast source must not be used; None if it may.

        Raises:
            ModelError: not even plain autograd gives the model's gradients.
        """
        unsupported = self._fast.unsupported
        reason = f"no fast way to the gradients of {', '.join(unsupported[:3])}" if unsupported else None
        for samples, token_weight in self._samples():
            try:
                with PathWatch(self._model) as watch:
                    slow = torch.cat([self._digests(self._plain, [one], token_weight) for one in samples])
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                if is_out_of_memory(error):
                    raise
                watch.check()
                logger.debug("the model fails on made-up tokens", exc_info=True)
                continue
            watch.check()
            if not (torch.isfinite(slow).all() and (slow[:, :, 0] > 0).any(dim=1).all()):
                continue
            self._check_after_answering(samples[-1], slow[-1:], token_weight)
            if reason is not None:
                return reason
            # The long sample is computed beside the short one, and then alone, because a model may treat a batch
            # of one in another way.
            batches = [*self._scaling.batches(samples), [0]]
            try:
                fast = [
                    self._digests(self._fast, [samples[one] for one in batch], token_weight) for batch in batches
                ]
            except (NotBatchedError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                return str(error)
            expected = torch.cat([slow[batch] for batch in batches])
            found = disagreement(torch.cat(fast), expected, self._precision)
            if found is not None and found > 1:
                return f"a batch's gradients differ from a single sample's, {found:.2g} × what rounding explains"
            return None
        return reason or "the gradients of made-up tokens are zero or not finite"

    def _check_after_answering(self, sample: _TrialSample, before: Tensor, token_weight: float | None) -> None:
        """Make sure that a model whose state may change has the same gradients after it has answered something.

        Args:
            sample: a made-up sample.
            before: its digests so far, float64 [1, L, 2].
            token_weight: weight of every token.

        Raises:
            ModelError: the gradients are others, or parts of them are missing.
        """
        if not may_change_state(self._model):
            return
        answer_something(self._model, sample.ids)
        try:
            with PathWatch(self._model) as watch:
                after = self._digests(self._plain, [sample], token_weight)
        finally:
            watch.check()  # what cuts gradients off may make torch raise an error, too
        found = disagreement(after, before, self._precision)
        if found is not None and found > 1:
            raise ModelError(
                "the model's gradients change once it has answered something, "
                f"{found:.2g} times as much as rounding explains, because it then computes with other weights: "
                "give another --quantization or --device"
            )

    def _samples(self) -> Iterator[tuple[list[_TrialSample], float | None]]:
        """Make up pairs of a long and a short sample, with weights of tokens; they depend on the model alone."""
        long = max(2, min(_TRIAL_TOKENS, self._context))
        lengths = (long, max(2, long // 4))
        for seed in range(_TRIALS):
            generator = torch.Generator().manual_seed(seed)
            samples = [
                _TrialSample(torch.randint(self._vocabulary, (length,), generator=generator).tolist())
                for length in lengths
            ]
            for weight in _TRIAL_WEIGHTS if self._half else (None,):
                yield samples, weight

    def _digests(
        self, source: GradientSource, samples: Sequence[TokenSample], token_weight: float | None
    ) -> Tensor:
        return digests_of(source, samples, self._tensors, "loss", token_weight)


@dataclass(frozen=True, slots=True)
class _Extent:
    """How long a batch is, and how much padding it has.

    Attributes:
        length: number of tokens of the longest sample.
        padding: number of tokens by which the shortest sample is shorter.
    """

    length: int
    padding: int

    @classmethod
    def of(cls, samples: Sequence[TokenSample]) -> _Extent:
        """Measure a batch."""
        lengths = [len(sample.ids) for sample in samples]
        return cls(max(lengths), max(lengths) - min(lengths))

    def exceeds(self, other: _Extent) -> bool:
        """Tell whether a batch is more than twice as long as another, or has more than twice as much padding."""
        return self.length > 2 * other.length or self.padding > 2 * other.padding

    def union(self, other: _Extent) -> _Extent:
        """Take the larger length and the larger padding."""
        return _Extent(max(self.length, other.length), max(self.padding, other.padding))


class BatchWatch:
    """Compares samples of real batches with plain autograd.

    It changes no result. If the two disagree, it raises an error, because the results of batches before may be
    wrong, too, and because going on with plain autograd would make results depend on which batch came first.

    Args:
        plain: source that takes one sample and is always right.
        tensors: number of traced parameter tensors L.
        precision: coarsest type of the model's weights.
        thresholds: lengths beyond which the model may compute in another way, ascending; see `named_lengths`.
    """

    def __init__(
        self, plain: GradientSource, tensors: int, precision: torch.dtype, thresholds: Sequence[int] = ()
    ) -> None:
        self._plain = plain
        self._tensors = tensors
        self._precision = precision
        self._thresholds = thresholds
        self._crossed: set[int] = set()
        self._batches = 0
        # The trial's batch had some padding. The first real batch is compared in any case.
        self._compared = _Extent(0, _TRIAL_TOKENS)

    def emit(
        self,
        fast: GradientSource,
        samples: Sequence[TokenSample],
        consume: Consumer,
        objective: Differentiated,
        token_weight: float | None,
    ) -> None:
        """Let a fast source emit a batch; if the batch is unlike those before it, check its shortest sample.

        Args:
            fast: source that takes batches.
            samples: samples of the batch.
            consume: function that takes the gradients, see `GradientSource.emit`.
            objective: quantity of a target token that is differentiated.
            token_weight: weight of every target token, see `GradientSource.emit`.

        Raises:
            NotBatchedError: see `GradientSource.emit`.
            ModelError: The gradient in the batch is not that of the sample alone.
        """
        extent = _Extent.of(samples)
        self._batches += 1
        crossed = {length for length in self._thresholds if extent.length > length} - self._crossed
        if not (extent.exceeds(self._compared) or crossed or self._is_drawn()):
            fast.emit(samples, consume, objective, token_weight)
            return
        shortest = min(range(len(samples)), key=lambda position: len(samples[position].ids))
        digests = TensorDigests(1, self._tensors)

        def consume_and_digest(gradient: ParameterGradient) -> None:
            digests.consume(gradient.of_sample(shortest))
            consume(gradient)

        fast.emit(samples, consume_and_digest, objective, token_weight)
        try:
            slow = digests_of(self._plain, [samples[shortest]], self._tensors, objective, token_weight)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.debug("there is no memory to compare a sample of a batch with plain autograd")
        else:
            found = disagreement(digests.result(), slow, self._precision)
            if found is None:  # the gradient is not finite, so the next batch is compared
                return
            if found > 1 and not self._rounding_explains(
                found, fast, samples[shortest], slow, objective, token_weight
            ):
                raise ModelError(_reason(samples, shortest, found))
        self._compared = self._compared.union(extent)
        self._crossed |= crossed

    def _is_drawn(self) -> bool:
        """Tell whether this batch is compared although it is like those before it: the 8th, 64th, 512th …"""
        number = self._batches
        while number % _BETWEEN_DRAWN == 0:
            number //= _BETWEEN_DRAWN
        return number == 1

    def _rounding_explains(
        self,
        found: float,
        fast: GradientSource,
        sample: TokenSample,
        slow: Tensor,
        objective: Differentiated,
        token_weight: float | None,
    ) -> bool:
        """Find out whether a disagreement in a batch may come from rounding, which is large in low precision only.

        If it does, the sample disagrees alone, too.
        """
        if self._precision in (torch.float32, torch.float64):
            return False
        if found <= _LOW_PRECISION_LIMIT:
            return True
        alone = disagreement(
            digests_of(fast, [sample], self._tensors, objective, token_weight), slow, self._precision
        )
        if alone is not None and found > _BEYOND_ROUNDING * alone:
            return False
        logger.warning(
            "%s: in low precision its gradient is largely rounding error, which --dtype float32 may cure",
            _name(sample),
        )
        return True


def digests_of(
    source: GradientSource,
    samples: Sequence[TokenSample],
    tensors: int,
    objective: Differentiated,
    token_weight: float | None,
) -> Tensor:
    """Digest the gradients that a source emits for samples, float64 [b, L, 2]; see `TensorDigests`."""
    digests = TensorDigests(len(samples), tensors)
    source.emit(samples, digests.consume, objective, token_weight)
    return digests.result()


def _reason(samples: Sequence[TokenSample], position: int, found: float) -> str:
    """Say what is wrong with the gradient of a batch's sample, and what to do."""
    name = _name(samples[position])
    if len(samples) == 1:
        return (
            f"{name}: its gradient by hooks differs from plain autograd's, {found:.2g} times as much as rounding "
            "explains, although it does not for short samples; please report it, with the name of the model"
        )
    return (
        f"{name}: its gradient in a batch differs from its gradient alone, {found:.2g} times as much as rounding "
        "explains, because the model computes long batches in another way; give --tokens-per-batch 1, so that "
        "every sample is computed alone"
    )


def _name(sample: TokenSample) -> str:
    """Name a sample in a message."""
    id = getattr(sample, "id", None)
    return f"sample {id!r}" if isinstance(id, str) else f"a sample of {len(sample.ids)} tokens"


_LENGTH = re.compile(r"position|window|chunk|seq_?len|sequence|context|n_ctx|block_size|original_max")
"""Parts of the names under which configurations give lengths."""
_LONGEST = 10_000_000


def named_lengths(model: nn.Module) -> tuple[int, ...]:
    """List the lengths that a model's configuration names, ascending: windows, chunks, contexts of a training.

    A model may compute inputs beyond such a length in another way.
    """
    found: set[int] = set()

    def look(value: Any, depth: int) -> None:
        entries = value if isinstance(value, dict) else vars(value)
        for name, inner in entries.items():
            if isinstance(inner, dict) or hasattr(inner, "to_dict"):
                if depth:
                    look(inner, depth - 1)
            elif type(inner) is int and 1 < inner < _LONGEST and _LENGTH.search(str(name)):
                found.add(inner)

    config = getattr(inner_model(model), "config", None)
    if hasattr(config, "to_dict"):
        look(config, 3)
    return tuple(sorted(found))


def _vocabulary(model: nn.Module) -> int:
    """Find the number of token ids that the model both takes and predicts; some embed more than they predict."""
    embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    head = getattr(model.get_output_embeddings(), "weight", None)  # type: ignore[operator]
    return int(embeddings.shape[0] if head is None else min(embeddings.shape[0], head.shape[0]))


def _context_length(model: nn.Module) -> int:
    """Find the number of tokens that the model can take; if its configuration does not say, the trial's length."""
    return context_length(getattr(inner_model(model), "config", None)) or _TRIAL_TOKENS

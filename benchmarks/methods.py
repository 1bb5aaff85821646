"""The ways of going over samples whose speed and memory are compared, all on one machine and the same samples.

Plain training work is the yardstick: a forward and a backward pass with weight gradients. What computes influence
can hardly cost less than the backward pass without weight gradients ("activations only").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.authors import AuthorsProjection
from benchmarks.workload import KINDS, Sample, batches, projection_settings, traced
from rapidin.attribution.gradients import TokenSample
from rapidin.attribution.rapidgrads import BatchRunner, RapidGradEngine, TokenBudget

PLAIN = "plain forward and backward"
SINGLE = "plain, one sample at a time"
ACTIVATIONS = "activations only, no weight gradients"
UNMASKED = "{}, without attention mask"
AUTHORS = "the authors' algorithm"
RAPIDIN = {f"rapidin, {kind}": kind for kind in KINDS}
METHODS = (
    PLAIN,
    UNMASKED.format(PLAIN),
    SINGLE,
    ACTIVATIONS,
    UNMASKED.format(ACTIVATIONS),
    *RAPIDIN,
    AUTHORS,
)


class Method(Protocol):
    """Something that goes over samples and may leave vectors."""

    bytes_per_sample: int
    """Of what it would store of a sample, in half precision; 0 for nothing."""

    def run(self, samples: Sequence[Sample]) -> None:
        """Go over the samples once and throw the results away."""


def make_method(name: str, model: nn.Module, tokens: int, dimension: int) -> Method:
    """Make one of `METHODS`.

    Args:
        name: of the method.
        model: the method's own from now on, since methods want different things of its parameters.
        tokens: padded tokens of a batch.
        dimension: K.
    """
    if name in RAPIDIN:
        return Rapidin(model, RAPIDIN[name], tokens, dimension)
    if name == AUTHORS:
        return Authors(model, dimension)
    masked = name in (PLAIN, ACTIVATIONS)
    if name.startswith(ACTIVATIONS):
        return Activations(model, tokens, masked)
    return Plain(model, 0 if name == SINGLE else tokens, masked)


class Plain:
    """Forward and backward as in training, the gradients thrown away batch by batch."""

    bytes_per_sample = 0

    def __init__(self, model: nn.Module, tokens: int, masked: bool) -> None:
        self._model = model
        self._tokens = tokens
        self._masked = masked

    def run(self, samples: Sequence[Sample]) -> None:
        """Go over the samples once."""
        for batch in batches(samples, self._tokens):
            loss(self._model, batch, self._masked).backward()
            self._model.zero_grad(set_to_none=True)


class Activations:
    """Forward, and the part of the backward pass that leads to the embeddings' output."""

    bytes_per_sample = 0

    def __init__(self, model: nn.Module, tokens: int, masked: bool) -> None:
        self._model = model.requires_grad_(False)
        self._tokens = tokens
        self._masked = masked

    def run(self, samples: Sequence[Sample]) -> None:
        """Go over the samples once."""
        for batch in batches(samples, self._tokens):
            loss(self._model, batch, self._masked, to_embeddings=True).backward()


class Rapidin:
    """rapidin's own engine and batches, without a store."""

    def __init__(self, model: nn.Module, kind: str, tokens: int, dimension: int) -> None:
        self.bytes_per_sample = 2 * dimension
        self._engine = RapidGradEngine(model, traced(model), projection_settings(kind, dimension))
        budget = TokenBudget.for_device(tokens, self._engine.device, dimension)
        self._batches = BatchRunner(self._engine, budget)

    def run(self, samples: Sequence[Sample]) -> None:
        """Go over the samples once."""
        for _, batch in self._batches.rapidgrads(samples):
            if batch.problems:
                raise RuntimeError(f"rapidin could not use a sample: {batch.problems}")


def rapidgrads(engine: RapidGradEngine, samples: Sequence[TokenSample], tokens: int, dimension: int) -> np.ndarray:
    """Compute the RapidGrads of samples, float32 [n, K], in the samples' order."""
    vectors = np.empty((len(samples), dimension), dtype=np.float32)
    budget = TokenBudget.for_device(tokens, engine.device, dimension)
    for positions, batch in BatchRunner(engine, budget).rapidgrads(samples):
        if batch.problems:
            raise RuntimeError(f"rapidin could not use a sample: {batch.problems}")
        vectors[positions] = batch.vectors
    return vectors


class Authors:
    """One sample at a time, its whole gradient flattened and permuted."""

    def __init__(self, model: nn.Module, dimension: int) -> None:
        self.bytes_per_sample = 2 * dimension
        self._model = model
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._project = AuthorsProjection(sum(part.numel() for part in self._parameters), dimension)

    def run(self, samples: Sequence[Sample]) -> None:
        """Go over the samples once."""
        for sample in samples:
            parts = torch.autograd.grad(loss(self._model, [sample], masked=False), self._parameters)
            self._project(torch.cat([part.flatten() / part.norm().clamp_min(1e-30) for part in parts]))


def loss(model: nn.Module, samples: Sequence[Sample], masked: bool, to_embeddings: bool = False) -> Tensor:
    """Sum over samples of the mean cross-entropy of their targets, padded on the right.

    Only the targets' logits enter, as in rapidin, so that a ratio compares the gradients alone.

    Args:
        model: a causal language model.
        samples: of one batch.
        masked: give the model an attention mask, as usual. With padding on the right a causal model needs none,
            and its attention is faster without.
        to_embeddings: start from the embeddings' output, which then requires a gradient.
    """
    shape = len(samples), max(len(sample.ids) for sample in samples)
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.int64)
    weights = torch.zeros(shape)
    for row, sample in enumerate(samples):
        length = len(sample.ids)
        ids[row, :length] = torch.tensor(sample.ids)
        mask[row, :length] = 1
        weights[row, :length] = torch.tensor(sample.targets) / sum(sample.targets)
    inputs = {"input_ids": ids}
    if to_embeddings:
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        inputs = {"inputs_embeds": embedding(ids).detach().requires_grad_()}
    if masked:
        inputs["attention_mask"] = mask
    logits = model(**inputs, use_cache=False).logits
    counted = weights[:, 1:] > 0
    losses = nn.functional.cross_entropy(logits[:, :-1][counted].float(), ids[:, 1:][counted], reduction="none")
    return (losses * weights[:, 1:][counted]).sum()

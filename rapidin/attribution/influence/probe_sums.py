"""Weighted sums of the exact gradients of probes: what the curvature takes away from queries, not projected.

A corrected query is q − Ψᵀa, where row i of Ψ is the sketch of probe i's gradient ψ_i, times a constant, and a are
coefficients from the inner products of the sketches (`rapidin.attribution.curvature.query_correction`). With the
gradients in place of their sketches, Ψᵀa is Σ_i a_i ψ_i in the space of the parameters, and the noise of the
projection is in the coefficients alone. One forward and backward pass over the probes serves all queries that
memory has room for: the gradients of a batch are formed tensor by tensor, multiplied with the coefficients of
every query, and forgotten.

Shape letters: q queries · m probes · b batch · C states · K projection dimension · L parameter tensors · r rows ·
c columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidin.attribution.gradients import FisherDraw, ParameterGradient, TokenSample
from rapidin.attribution.influence.alignments import BLOCK_ELEMENTS
from rapidin.attribution.rapidgrads import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.support import WorkingMemory

Sums = list[Tensor | None]
"""Sums by parameter tensor, float32 [q, r, c] each; None stands for zeros."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe that can be computed again.

    Attributes:
        sample: sample that it was drawn from.
        draw: the draw.
    """

    sample: TokenSample
    draw: FisherDraw


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of a curvature.

    Attributes:
        again: the m probes as they can be computed again; None where the sample is gone.
        scale: factor of the probes' gradients in Ψ.
        sketched: function that gives rows of Ψ by their numbers, float32 [n, C·K].
    """

    again: Sequence[Probe | None]
    scale: float
    sketched: Callable[[Sequence[int]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TakenAway:
    """What the curvature takes away from a query, or from the part that one of its tokens has.

    Attributes:
        sections: tensors [r, c] at each state of the model, times the state's share; None where there is nothing.
        probes: number of probes m.
        restored: number of probes whose part was restored from their sketches, because they could not be computed.
    """

    sections: tuple[Sequence[Tensor | None], ...]
    probes: int
    restored: int


class ProbeSums:
    """Adds up gradients of probes.

    Args:
        engine: engine that computes the gradients.
        budget: budget that the batches begin with.
    """

    def __init__(self, engine: RapidGradEngine, budget: TokenBudget) -> None:
        self._engine = engine
        self._batches = BatchRunner(engine, budget)
        self._memory = WorkingMemory()

    def of(
        self, probes: Sequence[Probe | None], weights: Tensor, on_progress: Callable[[int], None] | None = None
    ) -> tuple[Sums, list[int]]:
        """Add up the gradients of probes, each times its weight in each sum.

        Args:
            probes: the m probes.
            weights: weights, float32 [q, m].
            on_progress: function that is called with the number of probes that are done.

        Returns:
            The sums, and the numbers of the probes that are not in them: those that are None, do not fit into
            memory, or have a gradient that is not finite.
        """
        total = self._nothing()
        left_out = [number for number, probe in enumerate(probes) if probe is None]
        done = len(left_out)
        for draw in dict.fromkeys(probe.draw for probe in probes if probe is not None):
            alike = [number for number, probe in enumerate(probes) if probe is not None and probe.draw == draw]
            numbered = [
                _Numbered(number, probe.sample) for number in alike if (probe := probes[number]) is not None
            ]

            def compute(batch: list[_Numbered], draw: FisherDraw = draw) -> tuple[Sums, list[int]]:
                sums, failed = self._batch(batch, draw, weights[:, [one.number for one in batch]])
                return sums, [batch[place].number for place in failed]

            def too_large(one: _Numbered) -> tuple[Sums, list[int]]:
                return self._nothing(), [one.number]

            for positions, (sums, failed) in self._batches.run(numbered, compute, too_large):
                total = _joined(total, sums)
                left_out += failed
                done += len(positions)
                if on_progress is not None:
                    on_progress(done)
        return total, sorted(left_out)

    def _batch(self, batch: Sequence[TokenSample], draw: FisherDraw, weights: Tensor) -> tuple[Sums, list[int]]:
        """Add up the gradients of a batch; in half precision as they were when they were sketched.

        Returns:
            The sums, and the places in the batch of those whose gradient is not finite.
        """
        first, *_ = ladder = self._engine.weights_of_sums
        sums = self._added(batch, draw, weights, first)
        if _finite(sums):
            return sums, []
        total = self._nothing()
        failed = []
        for place, sample in enumerate(batch):
            tries = (self._added([sample], draw, weights[:, [place]], token_weight) for token_weight in ladder)
            usable = next((one for one in tries if _finite(one)), None)
            if usable is None:
                failed.append(place)
            else:
                total = _joined(total, usable)
        return total, failed

    def _nothing(self) -> Sums:
        return [None] * len(self._engine.names)

    def _added(
        self, samples: Sequence[TokenSample], draw: FisherDraw, weights: Tensor, token_weight: float
    ) -> Sums:
        def new() -> _WeightedSum:
            return _WeightedSum(weights / token_weight, len(self._engine.names), self._memory)

        return self._engine.added(samples, new, draw, token_weight).tensors


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A probe's sample, and the probe's number."""

    number: int
    sample: TokenSample

    @property
    def ids(self) -> Sequence[int]:
        return self.sample.ids

    @property
    def targets(self) -> Sequence[bool]:
        return self.sample.targets


class _WeightedSum:
    """Sums of gradients over samples, each times a weight of its own in each sum.

    Args:
        weights: weights, float32 [q, b].
        tensors: number of parameter tensors L.
        memory: memory that gradients are formed in.
    """

    def __init__(self, weights: Tensor, tensors: int, memory: WorkingMemory) -> None:
        self.tensors: Sums = [None] * tensors
        self._weights = weights
        self._memory = memory

    def consume(self, positions: Sequence[int], gradient: ParameterGradient) -> None:
        """See `SumOverSamples.consume`."""
        count = len(self._weights)
        weights = self._weights[:, list(positions)].to(gradient.device)
        total = self.tensors[gradient.position]
        if total is None:
            total = torch.zeros(count, gradient.rows, gradient.columns, device=gradient.device)
            self.tensors[gradient.position] = total
        for rows, piece in gradient.pieces(BLOCK_ELEMENTS, self._memory):
            total[:, rows] += (weights @ piece.flatten(1)).view(count, -1, gradient.columns)


def sums_that_fit(free: float, elements: int) -> int:
    """Return the number of queries whose sums fit into memory, where a batch has sums of its own; it may be 0.

    Args:
        free: number of bytes; may be infinite.
        elements: number of elements of all parameter tensors.
    """
    return MOST_TOGETHER if math.isinf(free) else min(MOST_TOGETHER, int(free // (2 * 4 * elements)))


MOST_TOGETHER = 64
"""Maximum number of queries that share a pass over the probes."""


def _finite(sums: Sums) -> bool:
    return all(tensor is None or bool(tensor.sum().isfinite()) for tensor in sums)


def _joined(left: Sums, right: Sums) -> Sums:
    """Add sums to others, in place where both have a tensor."""
    return [
        other if tensor is None else tensor if other is None else tensor.add_(other)
        for tensor, other in zip(left, right, strict=True)
    ]

"""RapidGrads: per-sample gradients, normalised layer by layer and projected to K numbers.

Shape letters: b batch · r rows · c columns · n chunks · K projection dimension · L layers (parameter tensors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.attribution.gradients import (
    Accumulator,
    GivenNorms,
    GradientEngine,
    Normalisation,
    OwnNorms,
    RecordedNorms,
    TokenSample,
    Unnormalised,
    as_matrix,
)
from rapidin.attribution.projections import (
    FactoredProjection,
    FactoredSketches,
    ShuffledProjection,
    ShuffledSketches,
)
from rapidin.settings import GradientSettings, Objective, ProjectionSettings, TracedParameter
from rapidin.support import WorkingMemory

_TOKEN_WEIGHTS = (64.0, 1.0, 1 / 1024)
"""Scales of a token's loss in half precision, whose numbers lie between 6e-8 and 65,504: tried in this order.

At the first the gradient of a logit is at most 64, and 1e-9 of that is still above zero.
"""


@dataclass(frozen=True, slots=True)
class RapidGradBatch:
    """RapidGrads of some samples.

    Attributes:
        vectors: float32 [b, K]; rows named in `problems` are meaningless.
        problems: position of a sample → what is wrong with its gradient.
    """

    vectors: NDArray[np.float32]
    problems: dict[int, str]


class PendingBatch:
    """RapidGrads that are being computed.

    Args:
        vectors: float32 [b, K], on any device.
        usable: bool [2, b], whether each is finite, and whether it is not zero.
        half: whether the model computes in half precision.
    """

    def __init__(self, vectors: Tensor, usable: Tensor, half: bool) -> None:
        self._vectors, self._usable, self._half = vectors, usable, half
        self._copied: torch.cuda.Event | None = None
        if vectors.is_cuda:
            # Into pinned memory, the only kind that is copied to while the host goes on.
            self._vectors = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
            self._vectors.copy_(vectors, non_blocking=True)
            self._usable = torch.empty(usable.shape, dtype=usable.dtype, pin_memory=True)
            self._usable.copy_(usable, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(vectors.device))

    def finish(self) -> RapidGradBatch:
        """Wait for the RapidGrads."""
        if self._copied is not None:
            self._copied.synchronize()
        problems: dict[int, str] = {}
        for position, (finite, nonzero) in enumerate(self._usable.T.tolist()):
            if not (finite and nonzero):
                problems[position] = f"its gradient is {'zero' if finite else 'not finite'}"
                if self._half:
                    problems[position] += " in half precision, which --dtype bfloat16 or float32 may cure"
        return RapidGradBatch(self._vectors.numpy(), problems)


DEFAULT_GRADIENT = GradientSettings()


class RapidGradEngine:
    """Computes RapidGrads of token samples for one model and one projection.

    Args:
        model: a causal language model in evaluation mode; held until `close`.
        parameters: the traced parameter tensors, in the order of the flattened gradient.
        projection: settings of the projection.
        gradient: settings of the objective and of normalisation.

    Raises:
        ModelError: a traced parameter does not exist in the model.
        SettingError: K is larger than the number of traced parameters.

    Attributes:
        device: where the model's first layer is.
        normalise_layers: whether each layer's gradient is normalised.
        names: of the traced parameters.
        shapes: of these.
        precision: the coarsest type of the model's weights.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[TracedParameter],
        projection: ProjectionSettings,
        gradient: GradientSettings = DEFAULT_GRADIENT,
    ) -> None:
        self._projection = make_projection(projection, parameters)
        self.normalise_layers = gradient.normalise_layers
        self.names = tuple(parameter.name for parameter in parameters)
        self.shapes = tuple(parameter.shape for parameter in parameters)
        self._layers = len(parameters)
        self._memory = WorkingMemory()
        self._engine = GradientEngine(model, self.names, gradient.objective)
        self.device = self._engine.device
        self.precision = self._engine.precision

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()

    @property
    def objective(self) -> Objective:
        """What of a target token is differentiated."""
        return self._engine.objective

    @contextmanager
    def differentiating(self, objective: Objective) -> Iterator[None]:
        """Differentiate something else meanwhile, as methods do that ask about losses whatever the store's is."""
        before, self._engine.objective = self._engine.objective, objective
        try:
            yield
        finally:
            self._engine.objective = before

    def compute(self, samples: Sequence[TokenSample]) -> RapidGradBatch:
        """Compute the RapidGrad of every sample.

        With layer-wise normalisation each is scaled by 1/√L, so that the inner product of two of them estimates
        the mean over layers of the cosine between the two gradients.
        """
        return self.begin(samples).finish()

    def begin(self, samples: Sequence[TokenSample]) -> PendingBatch:
        """Begin to compute: on a GPU the kernels, and the copy to main memory behind them, are only queued."""
        vectors, factors = self.accumulate(
            samples, self._sketches(OwnNorms() if self.normalise_layers else Unnormalised())
        )
        vectors = vectors / math.sqrt(self._layers) if self.normalise_layers else vectors * factors.unsqueeze(1)
        usable = torch.stack([torch.isfinite(vectors).all(dim=1), (vectors != 0).any(dim=1)])
        return PendingBatch(vectors, usable, self._engine.half)

    def too_large(self, tokens: int) -> RapidGradBatch:
        """Make the result for a single sample of so many tokens that memory did not suffice for."""
        problem = (
            f"its {tokens} tokens do not fit into memory even alone: lower --max-length, or give another --device "
            "or a smaller --dtype"
        )
        return RapidGradBatch(np.zeros((1, self._projection.dimension), dtype=np.float32), {0: problem})

    def accumulate(
        self, samples: Sequence[TokenSample], new: Callable[[int], Accumulator], plainly: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of samples, in half precision with scaled losses.

        There it takes the largest scale of the loss at which a sample's gradient does not overflow. Every batch
        begins anew at the largest, so that a sample's result does not depend on those before it.

        Args:
            samples: b of them.
            new: makes an empty accumulator for a number of samples.
            plainly: as of `GradientEngine.accumulate`.

        Returns:
            The accumulators' results, one row per sample, and float32 [b], by which the gradients that were
            accumulated are to be multiplied to be those of the samples' mean losses.
        """
        if not self._engine.half:
            results = self._engine.accumulate(samples, new, plainly=plainly)
            return results, torch.ones(len(samples), device=results.device)
        first, *others = _TOKEN_WEIGHTS
        results = self._engine.accumulate(samples, new, first, plainly)
        weights = torch.full((len(samples),), first, device=results.device)
        for weight in others:
            overflown = torch.nonzero(~torch.isfinite(results).flatten(1).all(dim=1)).flatten()
            if not len(overflown):
                break
            again = [samples[position] for position in overflown]
            results[overflown] = self._engine.accumulate(again, new, weight, plainly)
            weights[overflown] = weight
        targets = torch.tensor([sum(sample.targets) for sample in samples], device=results.device)
        return results, 1 / (targets * weights)

    def norms(self, sample: TokenSample) -> Tensor:
        """Norms that layer-wise normalisation divides a sample's gradient by, float64 [L], of its mean loss.

        With the factored projection these are the norms of sketches.
        """
        made: list[RecordedNorms] = []

        def new(batch: int) -> Accumulator:
            made.append(RecordedNorms(self._layers))
            return self._sketches(made[-1])(batch)

        _, factors = self.accumulate([sample], new)
        return made[-1].norms * float(factors[0])

    def compute_with_norms(self, samples: Sequence[TokenSample], norms: Tensor | None) -> NDArray[np.float32]:
        """RapidGrads [b, K] of samples, all divided by the same norms of layers.

        Args:
            samples: b of them.
            norms: of `norms`; None where the store has no layer-wise normalisation.
        """
        normalisation = Unnormalised() if norms is None else GivenNorms(norms)
        vectors, factors = self.accumulate(samples, self._sketches(normalisation))
        vectors = vectors * factors.unsqueeze(1)
        return (vectors if norms is None else vectors / math.sqrt(self._layers)).cpu().numpy()

    def restored(self, vector: NDArray[np.float32], position: int, shape: Sequence[int]) -> Tensor:
        """What a RapidGrad [K] says of one tensor's gradient: that tensor's part of Rᵀz, float32 of `shape`.

        Its product with the normalised gradient g_l / (‖g_l‖·√L) of another sample, summed over the tensors, is
        the inner product of the two RapidGrads; without layer-wise normalisation the product with g_l is.
        """
        given = torch.from_numpy(vector).to(self.device)
        restored = self._projection.restored(given, position, math.prod(shape))
        return restored.view(*shape)

    def _sketches(self, normalisation: Normalisation) -> Callable[[int], Accumulator]:
        def new(batch: int) -> Accumulator:
            if isinstance(self._projection, FactoredProjection):
                return FactoredSketches(batch, self._projection, normalisation)
            return ShuffledSketches(batch, self._projection, normalisation, self._memory)

        return new


def make_projection(
    settings: ProjectionSettings, parameters: Sequence[TracedParameter]
) -> FactoredProjection | ShuffledProjection:
    """Make a store's map.

    Raises:
        SettingError: K does not fit the parameters.
    """
    shapes = [parameter.shape for parameter in parameters]
    if settings.kind == "factored":
        return FactoredProjection(settings, [as_matrix(shape) for shape in shapes])
    return ShuffledProjection(settings, shapes)

"""RapidGrads: per-sample gradients, normalised layer by layer and projected to K numbers.

Shape letters: b batch · K projection dimension · L layers (parameter tensors).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.attribution.gradients import (
    Accumulator,
    Differentiated,
    FisherDraw,
    GivenNorms,
    GradientEngine,
    Normalisation,
    OwnNorms,
    RecordedNorms,
    SumOverSamples,
    TokenSample,
    Unnormalised,
)
from rapidin.attribution.projections import make_projection
from rapidin.settings import GradientSettings, Objective, ProjectionSettings, TracedParameter
from rapidin.support import WorkingMemory

TOKEN_WEIGHTS = (64.0, 1.0, 1 / 1024)
"""Weights of a token's loss in half precision, whose numbers lie between 6e-8 and 65,504; tried in this order.

With the first weight the gradient of a logit is at most 64, and 1e-9 of that is still above zero.
"""


@dataclass(frozen=True, slots=True)
class RapidGradBatch:
    """RapidGrads of some samples.

    Attributes:
        vectors: RapidGrads, float32 [b, K]; rows that `problems` lists are meaningless.
        problems: position of a sample → clause that says what is wrong with its gradient.
    """

    vectors: NDArray[np.float32]
    problems: dict[int, str]


class PendingBatch:
    """RapidGrads that are being computed.

    Args:
        vectors: RapidGrads, float32 [b, K], on any device.
        usable: whether each RapidGrad is finite, and whether it is not zero, bool [2, b].
        half: whether the model computes in half precision.
    """

    def __init__(self, vectors: Tensor, usable: Tensor, half: bool) -> None:
        self._vectors, self._usable, self._half = vectors, usable, half
        self._copied: torch.cuda.Event | None = None
        if vectors.is_cuda:
            # The copy goes into pinned memory, because only then does the host go on during the copy.
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


DEFAULT_GRADIENT = GradientSettings(objective="loss")
Sum = TypeVar("Sum", bound=SumOverSamples)


class RapidGradEngine:
    """Computes RapidGrads of token samples for one model and one projection.

    Args:
        model: a causal language model in evaluation mode; held until `close`.
        parameters: the traced parameter tensors, in the order of the flattened gradient.
        projection: settings of the projection.
        gradient: settings of the objective and of normalisation.
        gradients: function that makes the engine of the gradients, given the model and the parameters' names.
        token_weights: weights of a token's loss that are tried in half precision, in this order.

    Raises:
        ModelError: A traced parameter does not exist in the model.
        SettingError: K does not fit the traced parameters.

    Attributes:
        device: device of the model's first layer.
        dimension: projection dimension K.
        names: names of the traced parameters.
        normalise_layers: whether each layer's gradient is normalised.
        objective: quantity of a target token whose gradient queries and exact influences are of.
        objectives: quantities whose gradients rows are of; a row has K numbers for each.
        precision: the coarsest type of the model's weights.
        shapes: shapes of the traced parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[TracedParameter],
        projection: ProjectionSettings,
        gradient: GradientSettings = DEFAULT_GRADIENT,
        gradients: Callable[[nn.Module, Sequence[str]], GradientEngine] = GradientEngine,
        token_weights: Sequence[float] = TOKEN_WEIGHTS,
    ) -> None:
        self._token_weights = token_weights
        self.names = tuple(parameter.name for parameter in parameters)
        self.shapes = tuple(parameter.shape for parameter in parameters)
        self.normalise_layers = gradient.normalise_layers
        self.objectives = gradient.objectives
        self.objective: Objective = gradient.default_objective
        self._projection = make_projection(projection, self.shapes)
        self.dimension = self._projection.dimension
        self._layers = len(parameters)
        self._memory = WorkingMemory()
        self._engine = gradients(model, self.names)
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
    def row_dimension(self) -> int:
        """Number of numbers of a row: K for each of the objectives."""
        return self.dimension * len(self.objectives)

    def asking(self, objective: Objective) -> RapidGradEngine:
        """Return an engine whose queries, rows and exact influences are those of one objective.

        It shares everything with this engine, and closes with it.
        """
        view = copy.copy(self)
        view.objective, view.objectives = objective, (objective,)
        return view

    def compute(self, samples: Sequence[TokenSample], raw: Differentiated | None = None) -> RapidGradBatch:
        """Compute the RapidGrad of every sample.

        With layer-wise normalisation each is scaled by 1/√L, so that the inner product of two of them estimates
        the mean over layers of the cosine between the two gradients. If there are two objectives, the RapidGrad
        of each is scaled by 1/√2, and the two are joined.

        Args:
            samples: the b samples.
            raw: quantity whose gradients are projected without layer-wise normalisation, instead: of an objective
                the mean over a sample's targets, which a search with curvature needs of its queries; of a draw the
                sum, which is a probe. None: the store's objectives, normalised as the store's settings say.
        """
        return self.begin(samples, raw).finish()

    def begin(self, samples: Sequence[TokenSample], raw: Differentiated | None = None) -> PendingBatch:
        """Begin to compute; a GPU only queues the kernels, and the copy to main memory behind them."""
        if raw is not None:
            parts = [self._unnormalised(samples, raw)]
        elif self.normalise_layers:
            parts = [self._normalised(samples, objective) for objective in self.objectives]
        else:
            parts = [self._unnormalised(samples, objective) for objective in self.objectives]
        # A gradient that is zero for one objective may not be for the other, but says too little all the same.
        finite = torch.stack([torch.isfinite(part).all(dim=1) for part in parts]).all(dim=0)
        nonzero = torch.stack([(part != 0).any(dim=1) for part in parts]).all(dim=0)
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) / math.sqrt(len(parts))
        return PendingBatch(vectors, torch.stack([finite, nonzero]), self._engine.half)

    def _normalised(self, samples: Sequence[TokenSample], objective: Objective) -> Tensor:
        """Compute layer-normalised RapidGrads, float32 [b, K]."""
        vectors, _ = self.accumulate(samples, self._sketches(OwnNorms()), objective)
        return vectors / math.sqrt(self._layers)

    def _unnormalised(self, samples: Sequence[TokenSample], differentiated: Differentiated) -> Tensor:
        """Compute RapidGrads without normalisation, float32 [b, K]; of a draw the sum over targets."""
        vectors, factors = self.accumulate(samples, self._sketches(Unnormalised()), differentiated)
        if isinstance(differentiated, FisherDraw):
            targets = [sum(sample.targets) for sample in samples]
            factors = factors * torch.tensor(targets, device=factors.device)
        return vectors * factors.unsqueeze(1)

    def accumulate(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[int], Accumulator],
        objective: Differentiated,
        plainly: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of samples, in half precision with scaled losses.

        A sample's loss gets the largest weight with which its gradient does not overflow. Every batch begins with
        the largest weight, so that a sample's result does not depend on the samples before it.

        Args:
            samples: the b samples.
            new: function that makes an empty accumulator for a number of samples.
            objective: quantity of a target token that is differentiated.
            plainly: whether to use plain autograd, see `GradientEngine.accumulate`.

        Returns:
            The accumulators' results, one row per sample, and factors, float32 [b]. The accumulated gradients
            times these factors are the gradients of the samples' mean objectives.
        """
        if not self._engine.half:
            results = self._engine.accumulate(samples, new, objective, plainly=plainly)
            return results, torch.ones(len(samples), device=results.device)
        first, *others = self._token_weights
        results = self._engine.accumulate(samples, new, objective, first, plainly)
        weights = torch.full((len(samples),), first, device=results.device)
        for weight in others:
            overflown = torch.nonzero(~torch.isfinite(results).flatten(1).all(dim=1)).flatten()
            if not len(overflown):
                break
            again = [samples[position] for position in overflown]
            results[overflown] = self._engine.accumulate(again, new, objective, weight, plainly)
            weights[overflown] = weight
        targets = torch.tensor([sum(sample.targets) for sample in samples], device=results.device)
        return results, 1 / (targets * weights)

    @property
    def weights_of_sums(self) -> tuple[float, ...]:
        """Weights of a token to try one after another, until the gradient of a sum over targets is finite."""
        return tuple(self._token_weights) if self._engine.half else (1.0,)

    def added(
        self,
        samples: Sequence[TokenSample],
        new: Callable[[], Sum],
        objective: Differentiated,
        token_weight: float,
    ) -> Sum:
        """Add up the gradients of samples' sums over targets, see `GradientEngine.added`; nothing is projected."""
        return self._engine.added(samples, new, objective, token_weight)

    def same_positions(self, length: int, other: int) -> bool:
        """Tell whether inputs of two lengths get the same positions, see `GradientEngine.same_positions`."""
        return self._engine.same_positions(length, other)

    def norms(self, sample: TokenSample) -> Tensor:
        """Compute the norms that layer-wise normalisation divides a sample's gradient by, float64 [L].

        They are those of the sample's mean objective; with the factored projection they are the norms of sketches.
        """
        made: list[RecordedNorms] = []

        def new(batch: int) -> Accumulator:
            made.append(RecordedNorms(self._layers))
            return self._sketches(made[-1])(batch)

        _, factors = self.accumulate([sample], new, self.objective)
        return made[-1].norms * float(factors[0])

    def compute_with_norms(
        self, samples: Sequence[TokenSample], norms: Tensor | None, objective: Objective | None = None
    ) -> NDArray[np.float32]:
        """Compute the RapidGrads [b, K] of samples, all divided by the same norms of layers.

        Args:
            samples: the b samples.
            norms: norms from `norms`; None for no layer-wise normalisation.
            objective: quantity of a target token that is differentiated; None: the store's.
        """
        normalisation = Unnormalised() if norms is None else GivenNorms(norms)
        vectors, factors = self.accumulate(samples, self._sketches(normalisation), objective or self.objective)
        vectors = vectors * factors.unsqueeze(1)
        return (vectors if norms is None else vectors / math.sqrt(self._layers)).cpu().numpy()

    def restored(self, vector: NDArray[np.float32], position: int, shape: Sequence[int]) -> Tensor:
        """Compute what a RapidGrad z says of one tensor's gradient: the tensor's part of Rᵀz, float32 of `shape`.

        The inner product of z with another sample's RapidGrad is the sum over the tensors of the products of these
        parts with the sample's normalised gradients g_l / (‖g_l‖·√L), or with g_l itself without layer-wise
        normalisation.

        Args:
            vector: the RapidGrad z [K].
            position: position of the tensor among the traced ones.
            shape: shape of the result.
        """
        given = torch.from_numpy(vector).to(self.device)
        restored = self._projection.restored(given, position, math.prod(shape))
        return restored.view(*shape)

    def _sketches(self, normalisation: Normalisation) -> Callable[[int], Accumulator]:
        return lambda batch: self._projection.sketches(batch, normalisation, self._memory)

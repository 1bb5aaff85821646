"""TracIn with exact, uncompressed gradients (Pruthi et al. 2020), with and without layer-wise normalisation.

The score is the inner product of whole gradients (Eq. 5 of Lin et al. 2024), summed over checkpoints of the
training and weighted by the learning rate at each. RapidIn approximates it. TracIn differentiates the loss, while
a store may differentiate the log-odds.

Shape letters: q queries · n samples · b batch · L parameter tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapidin.attribution import (
    ROUNDING,
    ROUNDING_LOW,
    GradientProducts,
    RapidGradEngine,
    TokenBudget,
    WholeGradient,
    direction_of,
    in_groups,
    over_tensors,
    query_gradient,
    significant,
)
from rapidin.evaluation.methods.scorer import AskedQuery, StepProgress, TrainingSet, progress_of_step
from rapidin.model import StoreModel, load_model
from rapidin.settings import Objective


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of the model during its training.

    Attributes:
        place: directory of the checkpoint: an adapter if the store's model has one, else a whole model.
        learning_rate: learning rate of the optimiser at the checkpoint.
    """

    place: str
    learning_rate: float


class TracIn:
    """Inner products of whole gradients.

    Args:
        model: model of the store.
        normalise_layers: whether each tensor's gradient is divided by its norm; a score is then the mean
            over tensors of cosines.
        checkpoints: checkpoints of the training; empty for the store's model alone.
        device: device that the checkpoints are loaded to.
        objective: objective that is differentiated; TracIn itself takes the loss.
    """

    def __init__(
        self,
        model: StoreModel,
        *,
        normalise_layers: bool = False,
        checkpoints: Sequence[Checkpoint] = (),
        device: str = "auto",
        objective: Objective = "loss",
    ) -> None:
        self.name = "tracin-ln" if normalise_layers else "tracin"
        self._model = model
        self._normalise_layers = normalise_layers
        self._checkpoints = checkpoints
        self._device = device
        self._objective = objective

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`.

        Raises:
            GradientError: a gradient is zero or not finite.
            ModelError: a checkpoint cannot be loaded.
        """
        if not self._checkpoints:
            with self._model.exclusive() as parts:
                return self._of_engine(parts.engine, queries, training, on_progress)
        total = np.zeros((len(queries), len(training)), dtype=np.float32)
        for number, checkpoint in enumerate(self._checkpoints):

            def report(step: str, done: int, of: int, number: int = number) -> None:
                if on_progress is not None:
                    on_progress(step, number * of + done, len(self._checkpoints) * of)

            with self._opened(checkpoint) as engine:
                found = self._of_engine(engine, queries, training, report)
            total += np.float32(checkpoint.learning_rate) * found
        return total

    @contextmanager
    def _opened(self, checkpoint: Checkpoint) -> Iterator[RapidGradEngine]:
        changed = "model" if self._model.settings.adapter is None else "adapter"
        settings = self._model.settings.model_copy(update={changed: checkpoint.place, "checkpoints": ()})
        loaded = load_model(settings, self._device, self._model.trust_remote_code)
        engine = RapidGradEngine(loaded.model, self._model.traced, self._model.projection, self._model.gradient)
        with engine:
            yield engine

    def _of_engine(
        self,
        engine: RapidGradEngine,
        queries: Sequence[AskedQuery],
        training: TrainingSet,
        on_progress: StepProgress | None,
    ) -> NDArray[np.float32]:
        budget = TokenBudget.for_device(self._model.tokens_per_batch, engine.device, engine.dimension)
        products = GradientProducts(engine, budget, self._objective)
        rounding = ROUNDING.get(engine.precision, ROUNDING_LOW)
        scores = np.empty((len(queries), len(training)), dtype=np.float32)
        for group, report in in_groups(
            products, len(queries), len(training), progress_of_step(on_progress, self.name)
        ):
            directions = [self._direction(engine, queries[number], rounding) for number in group]
            found = products.against(directions, training.encoded(), self._reduce(rounding), report)
            scores[group.start : group.stop] = found.T
        return scores

    def _direction(self, engine: RapidGradEngine, query: AskedQuery, rounding: float) -> WholeGradient:
        tensors, norms = query_gradient(engine, query.encoded, self._objective)
        return direction_of(tensors, norms, self._normalise_layers, rounding).tensors

    def _reduce(self, rounding: float) -> Callable[[Tensor, Tensor], Tensor]:
        if not self._normalise_layers:
            return over_tensors

        def cosines(products: Tensor, norms: Tensor) -> Tensor:
            weights = torch.where(significant(norms, rounding), norms.reciprocal(), 0.0)
            return (products * weights[:, :, None]).sum(dim=1)

        return cosines

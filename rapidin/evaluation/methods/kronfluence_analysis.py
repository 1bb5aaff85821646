"""The one module that knows kronfluence: EK-FAC factors of a model's linear layers, and scores by them.

kronfluence (https://github.com/pomonam/kronfluence) implements EK-FAC (George et al. 2018) for influence functions
as Grosse et al. (2023, arXiv 2308.03296) use it. It wraps layers of the model, passes over the samples, and keeps
factors in files. This module tells it what a batch's loss is, and takes the wrappers off again.

Shape letters: q queries · n samples · b batch · t tokens · g targets of the batch · v vocabulary.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model
from kronfluence.utils.dataset import DataLoaderKwargs
from kronfluence.utils.state import State
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from rapidin.attribution import TargetBatch, TokenSample, weighted_objective

_NAME = "ek-fac"
"""Name of the directories that kronfluence makes; there is one of each kind."""
_ALL_MODULES = "all_modules"
"""Name under which kronfluence keeps scores that are added up over layers."""

Report = Callable[[int], None]
"""Function that is called with the number of samples of each batch that is begun."""


class TargetLoss(Task):  # type: ignore[misc]
    """What kronfluence differentiates: the sum over a batch's samples of each sample's mean loss over its targets.

    This is the loss of `InfluenceFunction`, so scores of the two have one sign and one scale.

    Args:
        layers: names of the layers that kronfluence wraps.
        seed: seed of the labels that are drawn from the model's predictions.
        report: function that hears of every batch.

    Attributes:
        draw: number of the draw of labels; each pass over the samples has one of its own.
    """

    def __init__(self, layers: Sequence[str], seed: int, report: Report) -> None:
        self._layers = list(layers)
        self._seed = seed
        self._report = report
        self.draw = 0

    def get_influence_tracked_modules(self) -> list[str]:
        """Name the layers to wrap."""
        return self._layers

    def get_attention_mask(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Tell tokens from padding, [b, t]."""
        return batch["mask"]

    def compute_train_loss(self, batch: Mapping[str, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        """Compute the loss of training samples, or one whose gradients have the curvature as second moment.

        If labels are drawn, each target's loss is that of a label from the model's own prediction, and a sample's
        losses are added up and divided by the square root of their number. The gradients of different targets
        are then independent with mean zero, so the second moment of a sample's gradient is the Gauss–Newton matrix
        of its mean loss. (Divided by their number, it would be too small by that factor.)

        Args:
            batch: fields of a `TargetBatch`.
            model: the model.
            sample: whether labels are drawn.
        """
        targets, logits = self._predicted(batch, model)
        if not sample:
            return weighted_objective(logits, targets.targets, targets.sample_weights())
        with torch.no_grad():
            labels = drawn_labels(logits, targets, self._seed, self.draw)
        return weighted_objective(logits, labels, targets.counts.rsqrt()[targets.rows])

    def compute_measurement(self, batch: Mapping[str, Tensor], model: nn.Module) -> Tensor:
        """Compute the loss of queries; a sample that would lower it has a positive score."""
        return self.compute_train_loss(batch, model)

    def _predicted(self, batch: Mapping[str, Tensor], model: nn.Module) -> tuple[TargetBatch, Tensor]:
        targets = TargetBatch(**batch)
        self._report(len(targets.ids))
        logits = model(input_ids=targets.ids, attention_mask=targets.mask, use_cache=False).logits
        return targets, targets.predicting(logits)


class KronfluenceAnalysis:
    """A model whose layers are wrapped by kronfluence, see `opened`.

    Args:
        analyzer: kronfluence's analyzer.
        task: task of the analyzer.
    """

    def __init__(self, analyzer: Any, task: TargetLoss) -> None:
        self._analyzer = analyzer
        self._task = task

    def fit(self, samples: Dataset[Any], together: int) -> None:
        """Compute the factors in two passes over the samples, and keep them in the directory.

        Args:
            samples: the samples, each a `TokenSample`, the longest first, so that memory runs out early if at all.
            together: number of samples that are computed together.
        """
        arguments: dict[str, Any] = {
            "factors_name": _NAME,
            "factor_args": FactorArguments(
                strategy="ekfac", covariance_max_examples=None, lambda_max_examples=None
            ),
        }
        passes = {"dataset": samples, "per_device_batch_size": together, "dataloader_kwargs": _loading()}
        self._task.draw = 0
        self._analyzer.fit_covariance_matrices(**arguments, **passes)
        self._analyzer.perform_eigendecomposition(**arguments)
        self._task.draw = 1
        self._analyzer.fit_lambda_matrices(**arguments, **passes)

    def scores(
        self,
        queries: Sequence[TokenSample],
        samples: Dataset[Any],
        together: int,
        queries_together: int,
        damping: float | None,
    ) -> NDArray[np.float32]:
        """Score every sample for every query by the factors in the directory, float32 [q, n].

        Args:
            queries: the q queries, all in one pass over the samples.
            samples: the n samples, each a `TokenSample`.
            together: number of samples that are computed together.
            queries_together: number of queries whose gradients are computed together.
            damping: number that is added to every eigenvalue; None: 0.1 times the mean of a layer's.
        """
        passes = -(-len(queries) // queries_together)
        self._analyzer.compute_pairwise_scores(
            scores_name=_NAME,
            factors_name=_NAME,
            query_dataset=queries,
            train_dataset=samples,
            per_device_query_batch_size=queries_together,
            per_device_train_batch_size=together,
            dataloader_kwargs=_loading(),
            score_args=ScoreArguments(damping_factor=damping, query_gradient_accumulation_steps=passes),
            overwrite_output_dir=True,
        )
        found: NDArray[np.float32] = self._analyzer.load_pairwise_scores(_NAME)[_ALL_MODULES].float().numpy()
        return found


@contextmanager
def opened(
    model: nn.Module, layers: Sequence[str], directory: Path, seed: int, report: Report
) -> Iterator[KronfluenceAnalysis]:
    """Wrap layers of a model, which must be in evaluation mode without gradients; they are unwrapped at the end.

    Args:
        model: the model, on one device.
        layers: names of its layers, all `torch.nn.Linear`.
        directory: directory that keeps the factors.
        seed: seed of labels that are drawn.
        report: function that hears of every batch.
    """
    logging.getLogger("kronfluence").setLevel(logging.WARNING)  # otherwise it logs every step
    device = model.get_parameter(f"{layers[0]}.weight").device
    # kronfluence keeps one device for the whole process; left alone it would be the first GPU, if there is one.
    State(cpu=device.type == "cpu").device = device
    task = TargetLoss(layers, seed, report)
    originals = {name: model.get_submodule(name) for name in layers}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # its gradient scaler has an old name
            analyzer = Analyzer(
                _NAME,
                prepare_model(model, task),
                task,
                cpu=device.type == "cpu",
                disable_tqdm=True,
                output_dir=str(directory),
            )
            yield KronfluenceAnalysis(analyzer, task)
    finally:
        for name, original in originals.items():
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, original)


def drawn_labels(logits: Tensor, targets: TargetBatch, seed: int, draw: int) -> Tensor:
    """Draw a label for each target from the model's prediction; a sample's labels are the same in any batch.

    Args:
        logits: logits that predict the targets, [g, v].
        targets: the targets.
        seed: seed of all draws.
        draw: number of the draw; each has other labels.

    Returns:
        Token ids, int64 [g].
    """
    uniform: list[float] = []
    for ids, mask, count in zip(targets.ids.cpu(), targets.mask.cpu(), targets.counts.tolist(), strict=True):
        numbers = random.Random(f"{seed} {draw} {ids[mask.bool()].tolist()}")
        uniform += [numbers.random() for _ in range(int(count))]
    chances = logits.double().softmax(dim=-1).cumsum(dim=-1)
    places = torch.tensor(uniform, dtype=torch.float64, device=logits.device)[:, None] * chances[:, -1:]
    return torch.searchsorted(chances, places, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)


def _loading() -> Any:
    return DataLoaderKwargs(collate_fn=_collated)


def _collated(samples: Sequence[TokenSample]) -> dict[str, Tensor]:
    """Make the fields of a `TargetBatch`, because kronfluence moves dictionaries of tensors to its device."""
    batch = TargetBatch.of(samples)
    return {field.name: getattr(batch, field.name) for field in fields(batch)}

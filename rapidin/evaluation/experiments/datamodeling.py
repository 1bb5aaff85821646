"""The linear datamodeling score of methods on a store: do their scores predict what retraining does?

Models are trained on random subsets of the training samples. A method's scores, added up over a subset, should
rank the models as their losses on each query do (Park et al. 2023, arXiv 2303.14186, definition 2.3). This is the
causal check, because only retraining shows what a sample really did.

Shape letters: r repeats · m subsets · n samples · q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.evaluation.experiments.retrained_queries import ModelBank, RetrainingPlace, TrainingRuns
from rapidin.evaluation.experiments.subset_correlations import (
    datamodeling_scores,
    noise_ceiling,
    repeat_agreement,
    subset,
)
from rapidin.evaluation.methods import ALWAYS, METHODS, methods_to_judge
from rapidin.evaluation.metrics import Bootstrap
from rapidin.records import LdsReport, MethodLds

MINIMUM_SUBSETS = 5
"""Smallest number of models whose ranking means anything."""


@dataclass(frozen=True, slots=True)
class Retraining(TrainingRuns):
    """Settings of a retraining on random subsets.

    Attributes:
        training: settings of the training.
        seed: seed of the subsets.
        repeats: number of models for each subset; they differ in the seed of first weights and of the order of
            rows, and their losses are averaged. With 2 or more the noise of retraining is measured.
        jobs: number of models that are trained at a time; None for one per core, or one with a command.
        data: files from which the samples were ingested; a command gets their rows as they are. If empty, it gets
            rows of id, prompt and completion.
        keep: whether checkpoints and data files stay.
        subsets: number of subsets.
        fraction: share of the samples in each subset, in (0, 1): 0.5 for random halves, 0.99 for random removals
            of 1 %.

    Raises:
        SettingError: a value is out of range, or does not fit the way of training.
    """

    subsets: int = 50
    fraction: float = 0.5

    def __post_init__(self) -> None:
        TrainingRuns.__post_init__(self)  # super() does not find the class that `slots` makes
        if self.subsets < MINIMUM_SUBSETS:
            raise SettingError(
                f"--subsets {self.subsets} is too few to rank models: give at least {MINIMUM_SUBSETS}"
            )
        if not 0 < self.fraction < 1:
            raise SettingError(f"--fraction {self.fraction:g} cannot be used: give one between 0 and 1")

    def members(self, samples: int) -> NDArray[np.bool_]:
        """Tell which samples are in each subset, bool [m, n]."""
        drawn = [subset(samples, self.fraction, self.seed, number) for number in range(self.subsets)]
        return np.stack(drawn)


def linear_datamodeling(
    place: RetrainingPlace, queries: Path, methods: Sequence[str], retraining: Retraining
) -> LdsReport:
    """Retrain on subsets and compare the queries' losses with what methods predict.

    Args:
        place: store, model and directory.
        queries: data file of queries; the model answers those without a response.
        methods: names of methods, see `METHODS`; ``bm25`` is always among them.
        retraining: settings of the retraining.

    Raises:
        SettingError: a setting cannot be used.
        ComputationError: a training failed; finished ones are kept.
        RapidinError: something else cannot be used or computed.
    """
    names = methods_to_judge((*methods, ALWAYS))
    retraining.training.check(place.model.settings.adapter)
    training = place.training()
    rows = round(retraining.fraction * len(training))
    if not 0 < rows < len(training):
        raise SettingError(
            f"--fraction {retraining.fraction:g} of {len(training)} samples is {rows}: give a fraction that takes "
            "some samples and leaves out some"
        )
    asked = place.asked(queries)
    bank = ModelBank(place, training, asked, retraining)
    scored = place.scores(names, asked, training)
    members = retraining.members(len(training))
    repeated = bank.losses(members)
    losses = repeated.mean(axis=0)
    mean = Bootstrap(len(asked), retraining.seed).mean
    found = []
    for method in scored:
        by_query = datamodeling_scores(method.scores, members, losses)
        found.append(
            MethodLds(
                method.name,
                METHODS[method.name].summary,
                mean(by_query),
                tuple(by_query.tolist()),
                method.seconds(len(asked)),
            )
        )
    agreement = mean(repeat_agreement(repeated)) if retraining.repeats > 1 else None
    return LdsReport(
        store=str(place.store.path),
        samples=len(training),
        queries=tuple(query.query.id for query in asked),
        subsets=retraining.subsets,
        fraction=retraining.fraction,
        repeats=retraining.repeats,
        agreement=agreement,
        noise_ceiling=None if agreement is None else noise_ceiling(agreement, retraining.repeats),
        loss_mean=float(losses.mean()),
        loss_spread=float(losses.std(axis=0).mean()),
        training_seconds=bank.seconds,
        work=str(bank.directory),
        methods=tuple(found),
    )

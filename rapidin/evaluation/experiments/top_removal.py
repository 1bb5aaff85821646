"""The query loss difference (QLD) of methods on a store: how far does a loss rise without a method's best samples?

For each query a model is trained without the samples that a method ranks first. The better the method, the more
the query's loss rises above the loss under a model trained on all samples. As many samples removed at random show
what any removal does. Unlike the linear datamodeling score, this judges the top of a ranking only.

Shape letters: r repeats · m removed sets · n samples · q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.evaluation.experiments.retrained_queries import ModelBank, RetrainingPlace, TrainingRuns
from rapidin.evaluation.experiments.subset_correlations import subset
from rapidin.evaluation.methods import METHODS, methods_to_judge
from rapidin.evaluation.metrics import Bootstrap, ranking, tie_order
from rapidin.records import MethodQld, QldReport


@dataclass(frozen=True, slots=True)
class Removal(TrainingRuns):
    """Settings of a retraining without the best samples of methods.

    Attributes:
        training: settings of the training.
        seed: seed of the random removals.
        repeats: number of models for each set of samples; they differ in the seed of first weights and of the
            order of rows, and their losses are averaged.
        jobs: number of models that are trained at a time; None for one per core, or one with a command.
        data: files from which the samples were ingested; a command gets their rows as they are. If empty, it gets
            rows of id, prompt and completion.
        keep: whether checkpoints and data files stay, so that other queries can be asked about them.
        top: share of the samples that is removed, those with the highest scores, in (0, 1).
        random_sets: number of sets of as many random samples, which all queries share.

    Raises:
        SettingError: a value is out of range, or does not fit the way of training.
    """

    keep: bool = True
    top: float = 0.01
    random_sets: int = 10

    def __post_init__(self) -> None:
        TrainingRuns.__post_init__(self)  # super() does not find the class that `slots` makes
        if not 0 < self.top < 1:
            raise SettingError(f"--top {self.top:g} cannot be used: give a share between 0 and 1")
        if self.random_sets < 1:
            raise SettingError(f"--random-sets {self.random_sets} cannot be used: give 1 or more")


def query_loss_differences(
    place: RetrainingPlace, queries: Path, methods: Sequence[str], removal: Removal
) -> QldReport:
    """Retrain without each method's best samples for each query, and compute how far the query's loss rises.

    Args:
        place: store, model and directory.
        queries: data file of queries; the model answers those without a response.
        methods: names of methods, see `METHODS`.
        removal: settings of the removal and of the retraining.

    Raises:
        SettingError: a setting cannot be used.
        ComputationError: a training failed; finished ones are kept.
        RapidinError: something else cannot be used or computed.
    """
    names = methods_to_judge(methods)
    removal.training.check(place.model.settings.adapter)
    training = place.training()
    removed = round(removal.top * len(training))
    if not 0 < removed < len(training):
        raise SettingError(
            f"--top {removal.top:g} of {len(training)} samples is {removed}: give a share that removes some "
            "samples and leaves some"
        )
    asked = place.asked(queries)
    bank = ModelBank(place, training, asked, removal)
    scored = place.scores(names, asked, training)
    ties = tie_order([sample.id for sample in training.samples])
    random = [
        ~subset(len(training), removed / len(training), removal.seed, number)
        for number in range(removal.random_sets)
    ]
    members = np.stack(
        [
            np.ones(len(training), dtype=bool),
            *random,
            *(without_best(row, ties, removed) for method in scored for row in method.scores),
        ]
    )
    losses = bank.losses(members).mean(axis=0)
    everything, rises = losses[0], losses[1:] - losses[0]
    by_chance = rises[: len(random)].mean(axis=0)
    bootstrap = Bootstrap(len(asked), removal.seed)
    found = []
    for number, method in enumerate(scored):
        first = len(random) + number * len(asked)
        by_query = rises[first : first + len(asked)].diagonal()
        found.append(
            MethodQld(
                name=method.name,
                summary=METHODS[method.name].summary,
                rise=bootstrap.mean(by_query),
                beyond_random=bootstrap.mean(by_query - by_chance),
                by_query=tuple(by_query.tolist()),
                seconds=method.seconds(len(asked)),
            )
        )
    return QldReport(
        store=str(place.store.path),
        samples=len(training),
        queries=tuple(query.query.id for query in asked),
        top=removal.top,
        removed=removed,
        random_sets=removal.random_sets,
        repeats=removal.repeats,
        models=len({row.tobytes() for row in members}) * removal.repeats,
        loss=bootstrap.mean(everything),
        random=bootstrap.mean(by_chance),
        random_by_query=tuple(by_chance.tolist()),
        training_seconds=bank.seconds,
        work=str(bank.directory),
        methods=tuple(found),
    )


def without_best(scores: NDArray[np.float32], ties: NDArray[np.uint64], removed: int) -> NDArray[np.bool_]:
    """Tell which samples stay when those with the highest scores are removed.

    Args:
        scores: scores of one query, [n].
        ties: numbers of `tie_order`, [n].
        removed: number of samples that are removed.

    Returns:
        Whether each sample stays, bool [n].
    """
    stays = np.ones(len(scores), dtype=bool)
    stays[ranking(scores, ties)[:removed]] = False
    return stays

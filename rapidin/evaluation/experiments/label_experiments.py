"""The experiments of Tables 4 and 5 of Lin et al. 2024 (arXiv 2405.11724), on any store and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rapidin.evaluation.experiments.caching_costs import estimated_caching
from rapidin.evaluation.experiments.comparing import Comparison, cost_of, fitting, verdict
from rapidin.evaluation.experiments.questions import (
    Label,
    Questions,
    asked,
    asked_about_spans,
    relevant,
    training_set,
)
from rapidin.evaluation.methods import (
    METHODS,
    AskedQuery,
    Context,
    MethodOptions,
    SavedScores,
    ScoringRun,
    Tell,
    TrainingSet,
    methods_to_run,
    step_of,
)
from rapidin.evaluation.metrics import Bootstrap, average_precision, precision, ranking, tie_order
from rapidin.model import StoreModel
from rapidin.records import BackdoorReport, CachingCost, MethodTracing, TracedAt, TraceReport
from rapidin.storage import Store

TRACING_KS = (5, 10, 25, 50)
"""Those of Table 5."""


@dataclass(frozen=True, slots=True)
class LabelExperiment:
    """What both experiments are about.

    Attributes:
        store: open.
        model: of the store.
        label: what marks the samples that should be found.
        questions: the queries.
        where: filters that the training samples meet.
        device: as the user named it.
        options: of the methods.
        max_new_tokens: longest answer that the model may write.
        work: directory where scores are kept; None: they are not.
        alone: whether the first query is asked by itself, see `ScoringRun`.
    """

    store: Store
    model: StoreModel
    label: Label
    questions: Questions
    where: Sequence[str] = ()
    device: str = "auto"
    options: MethodOptions = field(default_factory=MethodOptions)
    max_new_tokens: int = 256
    work: Path | None = None
    alone: bool = True

    @property
    def context(self) -> Context:
        """What scorers are made from."""
        return Context(self.store, self.model, self.where, self.device, self.options)

    def answered(self, tell: Tell | None) -> list[AskedQuery]:
        """The queries, encoded whole and answered.

        Raises:
            RowError: a row cannot be used.
        """
        return asked(self.model, self.questions, self.max_new_tokens, step_of(tell, "answering queries"))

    def runner(self, training: TrainingSet, tell: Tell | None) -> ScoringRun:
        """Runs the methods on these samples."""
        return ScoringRun(self.context, training, SavedScores(self.work), tell, self.alone)


def backdoor(
    setting: LabelExperiment,
    baselines: Sequence[str],
    ks: Sequence[int],
    caching_seconds: float | None = None,
    tell: Tell | None = None,
) -> BackdoorReport:
    """Compare methods by Table 4's measures, and by what they take (Table 2).

    Args:
        setting: of the experiment.
        baselines: methods besides ``rapidin``.
        ks: sizes of the ends; those beyond half of the samples are left out.
        caching_seconds: that making the store's vectors took; None: estimated from some samples.
        tell: told of progress.

    Raises:
        SettingError: a method is unknown, or the label tells nothing apart.
        RapidinError: something else cannot be used or computed.
    """
    names = methods_to_run(baselines)
    training = training_set(setting.store, setting.model, setting.where)
    marked = relevant(setting.store, training, setting.label, setting.where)
    queries = setting.answered(tell)
    caching = (
        estimated_caching(setting.model, training, on_progress=step_of(tell, "caching some samples"))
        if caching_seconds is None
        else CachingCost(caching_seconds, 0)
    )
    runner = setting.runner(training, tell)
    own = runner.scores("rapidin", queries)
    comparison = Comparison(marked, tie_order([sample.id for sample in training.samples]), ks, own.scores)
    methods = []
    for name in names:
        found = own if name == "rapidin" else runner.scores(name, queries)
        methods.append(comparison.quality(found, cost_of(found, own, caching)))
    return BackdoorReport(
        store=str(setting.store.path),
        label=setting.label.expression,
        samples=len(training),
        relevant=int(marked.sum()),
        queries=len(queries),
        generated=sum(query.query.generated for query in queries),
        left_out=setting.questions.left_out,
        caching=caching,
        methods=tuple(methods),
        verdict=verdict(methods),
    )


def trace(
    setting: LabelExperiment, baselines: Sequence[str], ks: Sequence[int] = TRACING_KS, tell: Tell | None = None
) -> TraceReport:
    """Find the samples behind wrong words, asked by whole generations and by these words alone (Table 5).

    Args:
        setting: of the experiment; its questions name their spans.
        baselines: methods besides ``rapidin``.
        ks: numbers of samples at the top; those beyond all samples are left out.
        tell: told of progress.

    Raises:
        SettingError: a method is unknown or knows no tokens, or the label tells nothing apart.
        RapidinError: something else cannot be used or computed.
    """
    names = methods_to_run(baselines, knows_tokens=True)
    training = training_set(setting.store, setting.model, setting.where)
    marked = relevant(setting.store, training, setting.label, setting.where)
    whole = setting.answered(tell)
    parts = asked_about_spans(setting.model, whole, setting.questions)
    runner = setting.runner(training, tell)
    ties = tie_order([sample.id for sample in training.samples])
    mean = Bootstrap(len(whole)).mean

    methods = []
    for name in names:
        by_whole, by_span = (
            [marked[ranking(row, ties)] for row in runner.scores(name, queries).scores]
            for queries in (whole, parts)
        )
        at = []
        for k in fitting(ks, len(training)):
            first = np.array([precision(row, k) for row in by_whole])
            second = np.array([precision(row, k) for row in by_span])
            at.append(TracedAt(k, mean(first), mean(second), mean(second - first)))
        methods.append(
            MethodTracing(
                name=name,
                summary=METHODS[name].summary,
                at=tuple(at),
                average_precision_whole=mean(np.array([average_precision(row) for row in by_whole])),
                average_precision_span=mean(np.array([average_precision(row) for row in by_span])),
            )
        )
    return TraceReport(
        store=str(setting.store.path),
        label=setting.label.expression,
        samples=len(training),
        relevant=int(marked.sum()),
        queries=len(whole),
        generated=sum(query.query.generated for query in whole),
        left_out=setting.questions.left_out,
        methods=tuple(methods),
    )

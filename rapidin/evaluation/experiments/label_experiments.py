"""The experiments of Tables 4 and 5 of Lin et al. 2024 (arXiv 2405.11724), on any store and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rapidin.evaluation.experiments.attacked_queries import Behaviour
from rapidin.evaluation.experiments.caching_estimate import estimated_caching
from rapidin.evaluation.experiments.experiment_data import (
    Label,
    QueryRows,
    answered_queries,
    narrowed_to_spans,
    relevant,
    training_set,
)
from rapidin.evaluation.experiments.method_comparison import (
    Comparison,
    cost_of,
    figure_notes,
    fitting,
    verdict,
)
from rapidin.evaluation.methods import (
    METHODS,
    AskedQuery,
    Context,
    MethodOptions,
    SavedScores,
    ScoringRun,
    StepProgress,
    TrainingSet,
    methods_to_run,
    progress_of_step,
)
from rapidin.evaluation.metrics import Bootstrap, average_precision, precision, ranking, tie_order
from rapidin.model import StoreModel
from rapidin.records import BackdoorReport, CachingCost, MethodTracing, TracedAt, TraceReport
from rapidin.settings import MAX_NEW_TOKENS, Objective
from rapidin.storage import Store

TRACING_KS = (5, 10, 25, 50)
"""Values of k in Table 5."""


@dataclass(frozen=True, slots=True)
class LabelExperiment:
    """Settings that both experiments with a label share.

    Attributes:
        store: an open store.
        model: model of the store.
        label: label of the samples that should be found.
        query_rows: queries that are asked.
        behaviour: behaviour that a query's answer must show in order to count in `backdoor`; None to count all.
        where: filters that the training samples meet.
        device: device as the user named it.
        options: settings of the methods.
        max_new_tokens: maximum length of an answer that the model writes.
        work: directory that keeps scores; None to keep none.
        alone: whether the first query is asked by itself, see `ScoringRun`.
    """

    store: Store
    model: StoreModel
    label: Label
    query_rows: QueryRows
    behaviour: Behaviour | None = None
    where: Sequence[str] = ()
    device: str = "auto"
    options: MethodOptions = field(default_factory=MethodOptions)
    max_new_tokens: int = MAX_NEW_TOKENS
    work: Path | None = None
    alone: bool = True

    @property
    def context(self) -> Context:
        """Objects from which scorers are made."""
        return Context(self.store, self.model, self.where, self.device, self.options)

    @property
    def asked(self) -> Objective:
        """Objective of the questions that the store's own methods are asked."""
        return self.options.objective or self.model.gradient.default_objective

    def answered(self, on_progress: StepProgress | None) -> list[AskedQuery]:
        """Answer the queries and encode them whole.

        Raises:
            RowError: a row cannot be used.
        """
        return answered_queries(
            self.model, self.query_rows, self.max_new_tokens, progress_of_step(on_progress, "answering queries")
        )

    def runner(self, training: TrainingSet, on_progress: StepProgress | None) -> ScoringRun:
        """Make the run of methods on these samples."""
        return ScoringRun(self.context, training, SavedScores(self.work), on_progress, self.alone)


def backdoor(
    setting: LabelExperiment,
    baselines: Sequence[str],
    ks: Sequence[int],
    caching_seconds: float | None = None,
    on_progress: StepProgress | None = None,
) -> BackdoorReport:
    """Compare methods by the measures of Table 4, and by time and memory (Table 2).

    Args:
        setting: store, model, label and queries.
        baselines: names of the methods besides ``rapidin``.
        ks: numbers of samples at each end; numbers beyond half of the samples are left out.
        caching_seconds: seconds that computing the store's vectors took; None to estimate them.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a method is unknown, or the label does not tell samples apart.
        DataFileError: no answer shows the behaviour.
        RapidinError: something else cannot be used or computed.
    """
    names = methods_to_run(baselines)
    training = training_set(setting.store, setting.model, setting.where)
    marked = relevant(setting.store, training, setting.label, setting.where)
    answered, behaviour = setting.answered(on_progress), setting.behaviour
    queries = answered if behaviour is None else behaviour.shown(answered, setting.query_rows.samples[0].file)
    caching = (
        estimated_caching(
            setting.model, training, on_progress=progress_of_step(on_progress, "caching some samples")
        )
        if caching_seconds is None
        else CachingCost(caching_seconds, 0)
    )
    runner = setting.runner(training, on_progress)
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
        left_out=setting.query_rows.left_out,
        attacked=None if behaviour is None else behaviour.text,
        attacked_by=None if behaviour is None else behaviour.kind,
        not_attacked=setting.query_rows.not_attacked + len(answered) - len(queries),
        caching=caching,
        methods=tuple(methods),
        verdict=verdict(methods),
        notes=figure_notes(methods, float(marked.mean()), setting.asked, setting.model.gradient.objectives),
    )


def trace(
    setting: LabelExperiment,
    baselines: Sequence[str],
    ks: Sequence[int] = TRACING_KS,
    on_progress: StepProgress | None = None,
) -> TraceReport:
    """Find the samples behind wrong words, asked by whole generations and by these words alone (Table 5).

    Args:
        setting: store, model, label and queries, which name their spans.
        baselines: names of the methods besides ``rapidin``.
        ks: numbers of samples at the top; numbers beyond that of all samples are left out.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a method is unknown or knows no tokens, or the label does not tell samples apart.
        RapidinError: something else cannot be used or computed.
    """
    names = methods_to_run(baselines, knows_tokens=True)
    training = training_set(setting.store, setting.model, setting.where)
    marked = relevant(setting.store, training, setting.label, setting.where)
    whole = setting.answered(on_progress)
    parts = narrowed_to_spans(setting.model, whole, setting.query_rows)
    runner = setting.runner(training, on_progress)
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
        left_out=setting.query_rows.left_out,
        methods=tuple(methods),
    )

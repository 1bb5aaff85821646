"""The evaluations as functions of a program; the commands ``rapidin evaluate …`` call exactly these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from torch import nn

from rapidin.evaluation.experiments import (
    TRACING_KS,
    Label,
    LabelExperiment,
    Removal,
    Retraining,
    RetrainingPlace,
    backdoor,
    behaviour_of,
    fidelity,
    linear_datamodeling,
    query_loss_differences,
    read_query_rows,
    span_reader,
    trace,
)
from rapidin.evaluation.methods import (
    ALWAYS,
    QUICK_METHODS,
    SCORES_DIRECTORY,
    MethodOptions,
    StepProgress,
    methods_to_run,
    require_packages,
)
from rapidin.evaluation.metrics import PAPER_KS
from rapidin.model import StoreModel
from rapidin.records import BackdoorReport, FidelityReport, LdsReport, QldReport, TraceReport
from rapidin.settings import MAX_NEW_TOKENS, Answers, Objective
from rapidin.storage import Store
from rapidin.text import TextSample, Tokenizer


def evaluate_backdoor(
    store: Store | str | Path,
    queries: str | Path,
    label: str,
    *,
    baselines: Sequence[str] = QUICK_METHODS,
    ks: Sequence[int] = PAPER_KS,
    where: Sequence[str] = (),
    attacked: str | None = None,
    limit_queries: int | None = None,
    answers: Answers = "file",
    options: MethodOptions | None = None,
    caching_seconds: float | None = None,
    together: bool = False,
    work: str | Path | None = None,
    model: str | nn.Module | None = None,
    tokenizer: Tokenizer | None = None,
    adapter: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> BackdoorReport:
    """Compare how well rapidin and other methods find labelled samples, and how much time and memory they take.

    This is the experiment of Tables 4 and 2 of Lin et al. 2024 (arXiv 2405.11724): training samples with the
    label, such as those of a backdoor, should rank first for generations that they caused.

    >>> report = rapidin.evaluate_backdoor("store", "queries.jsonl", "poisoned=true")
    >>> report.methods[0].average_precision.mean
    0.97

    Args:
        store: a store, open or by its path.
        queries: data file of generations to ask about, in the row shapes that ingest takes.
        label: filter ``FIELD=VALUE`` that marks the training samples that should be found; queries that carry
            another value of the field are left out.
        baselines: names of the methods that ``rapidin`` is compared with; ``all`` stands for every one, and
            ``bm25`` is always among them.
        ks: numbers of samples at each end of a ranking; those beyond half of the samples are left out.
        where: filters that the training samples must meet.
        attacked: mark of the queries that count, because their answers show the behaviour: the name of a field
            that every query has and that must be true, or else a regular expression that the answer must contain a
            match of; None to count all.
        limit_queries: maximum number of queries; the first ones are taken, before `attacked` leaves some out.
        answers: ``file`` asks about the file's own responses where a row has one, ``model`` about what the model
            writes now.
        options: settings of the methods.
        caching_seconds: seconds that the ingest took; None to estimate them from some samples.
        together: whether all queries are asked at once; the time of a single query then stays unknown.
        work: directory that keeps scores for the next run; None for ``STORE/evaluation``.
        model: network or directory to use instead of the place that the store remembers.
        tokenizer: tokenizer of a network that is given.
        adapter: directory of the adapter, if it moved.
        device: device that computes, such as ``auto``, ``cpu`` or ``cuda:0``.
        tokens_per_batch: maximum number of tokens in a batch; None to choose it by free memory.
        max_new_tokens: maximum length of an answer that the model writes.
        trust_remote_code: whether a checkpoint's own Python code may run.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a method is unknown, or the label does not tell samples apart.
        DataFileError: no query is left.
        DependencyError: a package that a method needs is not installed.
        RapidinError: something else cannot be used or computed.
    """
    options = options or MethodOptions()
    names = methods_to_run(baselines)
    require_packages(names, options)
    with _experiment(
        store,
        queries,
        label,
        where=where,
        limit_queries=limit_queries,
        answers=answers,
        options=options,
        work=work,
        alone=not together,
        max_new_tokens=max_new_tokens,
        model=model,
        tokenizer=tokenizer,
        adapter=adapter,
        device=device,
        tokens_per_batch=tokens_per_batch,
        trust_remote_code=trust_remote_code,
        attacked=attacked,
        question="log-odds",
    ) as experiment:
        return backdoor(experiment, names, ks, caching_seconds, on_progress)


def evaluate_trace(
    store: Store | str | Path,
    queries: str | Path,
    label: str,
    *,
    spans: Sequence[str] = (),
    span_field: str = "span",
    baselines: Sequence[str] = (),
    ks: Sequence[int] = TRACING_KS,
    where: Sequence[str] = (),
    limit_queries: int | None = None,
    answers: Answers = "file",
    options: MethodOptions | None = None,
    work: str | Path | None = None,
    model: str | nn.Module | None = None,
    tokenizer: Tokenizer | None = None,
    adapter: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> TraceReport:
    """Find the training samples behind wrong words, asked by whole generations and by these words alone.

    This is the experiment of Table 5 of Lin et al. 2024: an entity was replaced in some training samples, and the
    model repeats it.

    >>> report = rapidin.evaluate_trace("store", "queries.jsonl", "replaced=true", spans=["Atlantis"])
    >>> report.methods[0].at[0].gain.mean
    0.4

    Args:
        store: a store, open or by its path.
        queries: data file of generations to ask about, in the row shapes that ingest takes.
        label: filter ``FIELD=VALUE`` that marks the training samples that should be found.
        spans: wrong words of all queries; empty to take those in each query's field.
        span_field: field that names a query's wrong words, a text or a list of texts.
        baselines: names of the methods that ``rapidin`` is compared with; they must know tokens.
        ks: numbers of samples at the top of a ranking; those beyond all samples are left out.
        where, limit_queries, answers, options, work: see `evaluate_backdoor`.
        model, tokenizer, adapter, device, tokens_per_batch, max_new_tokens, trust_remote_code: see
            `evaluate_backdoor`.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a method is unknown or knows no tokens, or the label does not tell samples apart.
        RowError: a query's wrong words are missing or do not occur in its generation.
        RapidinError: something else cannot be used or computed.
    """
    options = options or MethodOptions()
    names = methods_to_run(baselines, knows_tokens=True)
    require_packages(names, options)
    with _experiment(
        store,
        queries,
        label,
        span_of=span_reader(span_field, spans),
        where=where,
        limit_queries=limit_queries,
        answers=answers,
        options=options,
        work=work,
        max_new_tokens=max_new_tokens,
        model=model,
        tokenizer=tokenizer,
        adapter=adapter,
        device=device,
        tokens_per_batch=tokens_per_batch,
        trust_remote_code=trust_remote_code,
    ) as experiment:
        return trace(experiment, names, ks, on_progress)


def evaluate_fidelity(
    store: Store | str | Path,
    *,
    samples: int = 64,
    seed: int = 0,
    model: str | nn.Module | None = None,
    tokenizer: Tokenizer | None = None,
    adapter: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> FidelityReport:
    """Compare stored scores with those of exact gradients, and say whether K and bits suffice.

    >>> rapidin.evaluate_fidelity("store").verdict
    'K = 65,536 suffices: stored scores correlate at 0.981 with exact ones. …'

    Args:
        store: a store, open or by its path, with at least 8 samples.
        samples: number of stored samples that stand for queries, and number of others that are ranked.
        seed: seed of the draw.
        model, tokenizer, adapter, device, tokens_per_batch, trust_remote_code: see `evaluate_backdoor`.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: the store or `samples` is too small.
        RapidinError: something else cannot be used or computed.
    """
    require_packages((), MethodOptions())
    with (
        _opened(store) as opened,
        StoreModel(
            opened,
            model=model,
            tokenizer=tokenizer,
            adapter=adapter,
            device=device,
            tokens_per_batch=tokens_per_batch,
            trust_remote_code=trust_remote_code,
        ) as loaded,
    ):
        return fidelity(opened, loaded, samples, seed, on_progress)


def evaluate_lds(
    store: Store | str | Path,
    queries: str | Path,
    *,
    methods: Sequence[str] = ("rapidin", *QUICK_METHODS),
    retraining: Retraining | None = None,
    options: MethodOptions | None = None,
    work: str | Path | None = None,
    model: str | nn.Module | None = None,
    tokenizer: Tokenizer | None = None,
    adapter: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> LdsReport:
    """Retrain on random subsets and tell whether the methods' scores predicted what happens.

    The linear datamodeling score (Park et al. 2023, arXiv 2303.14186) of a query is the rank correlation, over
    models trained on random subsets, of the sum of a method's scores over the subset with the negative loss. 1 is
    perfect, 0 is chance.

    >>> report = rapidin.evaluate_lds("store", "queries.jsonl", methods=["rapidin", "random"])
    >>> [(method.name, str(method.lds)) for method in report.methods]
    [('rapidin', '0.412 [0.351, 0.470]'), ('random', '-0.011 [-0.048, 0.027]')]

    Args:
        store: a store, open or by its path; its model should have been trained on all samples in the same way.
        queries: data file of generations to ask about, in the row shapes that ingest takes.
        methods: names of the methods that are judged; ``bm25`` is always among them.
        retraining: settings of the retraining; None for 50 models that the built-in loop trains.
        options: settings of the methods.
        work: directory that keeps scores, losses and logs for the next run; None for ``STORE/evaluation``.
        model, tokenizer, adapter, device, tokens_per_batch, max_new_tokens, trust_remote_code: see
            `evaluate_backdoor`.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a setting cannot be used.
        ComputationError: a training failed; the finished ones are kept, and the next run goes on.
        RapidinError: something else cannot be used or computed.
    """
    options, retraining = _asking("loss", options), retraining or Retraining()
    require_packages((*methods, ALWAYS), options)
    with _retraining_place(
        store,
        work=work,
        options=options,
        max_new_tokens=max_new_tokens,
        on_progress=on_progress,
        model=model,
        tokenizer=tokenizer,
        adapter=adapter,
        device=device,
        tokens_per_batch=tokens_per_batch,
        trust_remote_code=trust_remote_code,
    ) as place:
        return linear_datamodeling(place, Path(queries), methods, retraining)


def evaluate_qld(
    store: Store | str | Path,
    queries: str | Path,
    *,
    methods: Sequence[str] = ("rapidin", ALWAYS),
    removal: Removal | None = None,
    options: MethodOptions | None = None,
    work: str | Path | None = None,
    model: str | nn.Module | None = None,
    tokenizer: Tokenizer | None = None,
    adapter: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> QldReport:
    """Retrain without the samples that a method ranks first, and tell how far each query's loss rises.

    This query loss difference (QLD) judges the top of a ranking, while the linear datamodeling score judges all of
    it. Each method takes a model for each query. Models are kept in `work`, and every method and store that
    removes the same samples from the same data uses them again.

    >>> report = rapidin.evaluate_qld("store", "queries.jsonl", removal=Removal(top=0.01))
    >>> [(method.name, str(method.beyond_random)) for method in report.methods]
    [('rapidin', '0.218 [0.140, 0.302]'), ('bm25', '0.151 [0.088, 0.220]')]

    Args:
        store: a store, open or by its path; its model should have been trained on all samples in the same way.
        queries: data file of generations to ask about, in the row shapes that ingest takes.
        methods: names of the methods that are judged.
        removal: settings of the removal and of the retraining; None to remove 1 % and to train by the built-in
            loop.
        options: settings of the methods.
        work: directory that keeps scores, losses, checkpoints and logs for the next run; None for
            ``STORE/evaluation``. Give a directory outside if several stores shall share it.
        model, tokenizer, adapter, device, tokens_per_batch, max_new_tokens, trust_remote_code: see
            `evaluate_backdoor`.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: a setting cannot be used.
        ComputationError: a training failed; the finished ones are kept, and the next run goes on.
        RapidinError: something else cannot be used or computed.
    """
    options, removal = _asking("loss", options), removal or Removal()
    require_packages(methods, options)
    with _retraining_place(
        store,
        work=work,
        options=options,
        max_new_tokens=max_new_tokens,
        on_progress=on_progress,
        model=model,
        tokenizer=tokenizer,
        adapter=adapter,
        device=device,
        tokens_per_batch=tokens_per_batch,
        trust_remote_code=trust_remote_code,
    ) as place:
        return query_loss_differences(place, Path(queries), methods, removal)


class _ModelPlace(TypedDict):
    """The place of the model, and the way it computes; see `evaluate_backdoor`."""

    model: str | nn.Module | None
    tokenizer: Tokenizer | None
    adapter: str | None
    device: str
    tokens_per_batch: int | None
    trust_remote_code: bool


def _opened(store: Store | str | Path) -> AbstractContextManager[Store]:
    """Open a store for a ``with``, at whose end it is closed; a store that is open already stays open."""
    return nullcontext(store) if isinstance(store, Store) else Store.open(store)


@contextmanager
def _experiment(
    store: Store | str | Path,
    queries: str | Path,
    label: str,
    *,
    span_of: Callable[[TextSample], tuple[str, ...]] = lambda _: (),
    where: Sequence[str],
    limit_queries: int | None,
    answers: Answers,
    options: MethodOptions,
    work: str | Path | None,
    max_new_tokens: int,
    attacked: str | None = None,
    alone: bool = True,
    question: Objective = "loss",
    **place: Unpack[_ModelPlace],
) -> Iterator[LabelExperiment]:
    """Open a store and its model for an experiment with labelled samples.

    Its question is asked if the rows have that objective, and the options name no other.
    """
    marks = Label(label)
    with _opened(store) as opened:
        if question in opened.settings.gradient.objectives:
            options = _asking(question, options)
        # Before the model is loaded, so that an error in the file is reported at once.
        query_rows = read_query_rows(Path(queries), opened, marks, answers, limit_queries, span_of)
        behaviour = None if attacked is None else behaviour_of(attacked, query_rows.samples)
        if behaviour is not None:
            query_rows = behaviour.marked(query_rows)
        with StoreModel(opened, **place) as loaded:
            yield LabelExperiment(
                store=opened,
                model=loaded,
                label=marks,
                query_rows=query_rows,
                behaviour=behaviour,
                where=where,
                device=place["device"],
                options=options,
                max_new_tokens=max_new_tokens,
                work=_work(opened, work),
                alone=alone,
            )


@contextmanager
def _retraining_place(
    store: Store | str | Path,
    *,
    work: str | Path | None,
    options: MethodOptions,
    max_new_tokens: int,
    on_progress: StepProgress | None,
    **place: Unpack[_ModelPlace],
) -> Iterator[RetrainingPlace]:
    """Open a store and its model for an experiment that retrains."""
    with _opened(store) as opened, StoreModel(opened, **place) as loaded:
        yield RetrainingPlace(
            store=opened,
            model=loaded,
            work=_work(opened, work),
            device=place["device"],
            options=options,
            max_new_tokens=max_new_tokens,
            trust_remote_code=place["trust_remote_code"],
            on_progress=on_progress,
        )


def _asking(objective: Objective, options: MethodOptions | None) -> MethodOptions:
    """Let the store's own methods ask the question of an experiment, unless another one was given."""
    options = options or MethodOptions()
    return replace(options, objective=options.objective or objective)


def _work(store: Store, given: str | Path | None) -> Path:
    """The directory of saved scores: the one that was given, or the one in the store."""
    return store.path / SCORES_DIRECTORY if given is None else Path(given)

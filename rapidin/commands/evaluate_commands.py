"""The commands that ask whether the right samples are found: ``rapidin evaluate …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands import evaluate_lds
from rapidin.commands.evaluate_options import (
    Adapter,
    Answers,
    Baselines,
    Checkpoints,
    Device,
    EmbeddingModel,
    LabelOption,
    LimitQueries,
    MaxNewTokens,
    Model,
    Queries,
    Rerank,
    Seed,
    Settings,
    Together,
    Work,
    check_packages,
    checkpoints_of,
    directory_of,
    opened_model,
    setting_of,
)
from rapidin.commands.parts import (
    Json,
    StorePath,
    TokensPerBatch,
    TrustRemoteCode,
    Where,
    importing,
    output,
    progress,
    stderr,
    when_interrupted,
)
from rapidin.errors import SettingError

commands = typer.Typer(
    name="evaluate",
    help="Check on your own model and data that the samples found are the right ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

commands.command()(evaluate_lds.lds)

_RESUMED = "what was finished is kept, and the same command goes on"


@commands.command()
@when_interrupted(_RESUMED)
def backdoor(
    store: StorePath,
    queries: Queries,
    label: LabelOption,
    baseline: Baselines = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="Samples at each end; repeat. 5, 10, 50, 100, 500 and 1000 unless given."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw precision against k into this file (.png, .svg, .pdf)."),
    ] = None,
    where: Where = None,
    limit_queries: LimitQueries = None,
    answers: Answers = "file",
    rerank: Rerank = 100,
    embedding_model: EmbeddingModel = None,
    checkpoint: Checkpoints = None,
    setting: Settings = None,
    caching_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="S",
            help="What the ingest took; unless given, estimated by computing 64 samples' gradients anew.",
        ),
    ] = None,
    together: Together = False,
    work: Work = None,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: MaxNewTokens = 256,
    seed: Seed = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compare how well rapidin and other methods find labelled samples, and what they take.

    The paper's experiment (its Tables 4 and 2): training samples with the label, such as those of a backdoor,
    should rank first for generations that they caused. For each query the k best and the k worst samples are
    judged by auPRC and auROC; precision, average precision and reciprocal rank are of the whole ranking.

    Without --baseline the methods that need no gradients are compared: random, bm25, embedding.
    """
    if plot is not None and not plot.absolute().parent.is_dir():
        raise SettingError(f"--plot {plot}: its directory does not exist; make it, or give another place")
    with importing():
        from rapidin.commands.views.evaluate_view import backdoor_view
        from rapidin.evaluation import (
            PAPER_KS,
            QUICK,
            Label,
            Options,
            backdoor as run,
            chosen,
            method_settings,
            read_questions,
        )
        from rapidin.storage import Store
    names = chosen(baseline if baseline else QUICK)
    check_packages(names, embedding_model is not None, plot is not None)
    more = method_settings(setting or ())
    options = Options(seed, rerank, directory_of(embedding_model), checkpoints_of(checkpoint), more)
    marks = Label(label)
    with Store.open(store) as opened:
        questions = read_questions(queries, opened, marks, answers, limit_queries)
        with opened_model(opened, model, adapter, device, tokens_per_batch, trust_remote_code) as loaded:
            about = setting_of(
                *(opened, loaded, marks, questions, where, device, options, max_new_tokens, work),
                alone=not together,
            )
            with progress("asking") as show:
                report = run(about, names, k or PAPER_KS, caching_seconds, show)
    output(report, backdoor_view(report), as_json)
    if plot is not None:
        from rapidin.evaluation import plot_precision

        plot_precision(report, plot)
        stderr().print(f"plot: {plot}", highlight=False, soft_wrap=True)


@commands.command()
@when_interrupted(_RESUMED)
def trace(
    store: StorePath,
    queries: Queries,
    label: LabelOption,
    span: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Wrong words, the same for all queries; repeat."),
    ] = None,
    span_field: Annotated[
        str, typer.Option(metavar="FIELD", help="Field that names each query's wrong words: a text, or a list.")
    ] = "span",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method to compare with; repeat, or 'all'. Names: rapidin+rerank, tracin, tracin-ln, "
            "influence-cg, influence-lissa.",
        ),
    ] = None,
    where: Where = None,
    limit_queries: LimitQueries = None,
    answers: Answers = "file",
    rerank: Rerank = 100,
    checkpoint: Checkpoints = None,
    setting: Settings = None,
    work: Work = None,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: MaxNewTokens = 256,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Find the training samples behind wrong words, and compare with asking about whole generations.

    The paper's experiment (its Table 5): an entity was replaced in some training samples, and the model repeats
    it. The share of replaced samples among the first 5, 10, 25 and 50 is told for each method that knows tokens.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import trace_view
        from rapidin.evaluation import (
            Label,
            Options,
            chosen,
            method_settings,
            read_questions,
            span_reader,
            trace as run,
        )
        from rapidin.storage import Store
    names = chosen(baseline or (), knows_tokens=True)
    check_packages(names, False, False)
    more = method_settings(setting or ())
    options = Options(rerank=rerank, checkpoints=checkpoints_of(checkpoint), more=more)
    marks = Label(label)
    with Store.open(store) as opened:
        questions = read_questions(
            queries, opened, marks, answers, limit_queries, span_reader(span_field, span or ())
        )
        with opened_model(opened, model, adapter, device, tokens_per_batch, trust_remote_code) as loaded:
            about = setting_of(opened, loaded, marks, questions, where, device, options, max_new_tokens, work)
            with progress("asking") as show:
                report = run(about, names, tell=show)
    output(report, trace_view(report), as_json)


@commands.command()
@when_interrupted("nothing was changed, and the same command starts again")
def fidelity(
    store: StorePath,
    sample: Annotated[
        int,
        typer.Option(min=4, metavar="N", help="Stored samples that stand for queries, and others to be ranked."),
    ] = 64,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    seed: Seed = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compare stored scores with those of exact gradients, and say whether K and bits suffice.

    N stored samples, drawn at random, are asked about as if they were queries, and N others are ranked, once by
    their stored vectors and once by whole gradients. This takes about 3 N training steps.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import fidelity_view
        from rapidin.evaluation import fidelity as run
        from rapidin.storage import Store
        from rapidin.support import package
    package("scipy.stats", "scipy")
    with (
        Store.open(store) as opened,
        opened_model(opened, model, adapter, device, tokens_per_batch, trust_remote_code) as loaded,
        progress("comparing") as show,
    ):
        report = run(opened, loaded, sample, seed, show)
    output(report, fidelity_view(report), as_json)

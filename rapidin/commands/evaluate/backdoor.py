"""``rapidin evaluate backdoor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import (
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
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode, Where
from rapidin.commands.output import output, progress, stderr, when_interrupted
from rapidin.errors import SettingError


@when_interrupted("what was finished is kept, and the same command goes on")
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

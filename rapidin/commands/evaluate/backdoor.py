"""``rapidin evaluate backdoor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import (
    Adapter,
    Answers,
    Asked,
    Attacked,
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
    checkpoints_of,
    directory_of,
    evaluated,
)
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode, Where
from rapidin.commands.output import stderr, when_interrupted
from rapidin.errors import SettingError
from rapidin.settings import MAX_NEW_TOKENS
from rapidin.support import package


@when_interrupted("what was finished is kept, and the same command goes on")
def backdoor(
    store: StorePath,
    queries: Queries,
    label: LabelOption,
    baseline: Baselines = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            "-k",
            min=1,
            help="Number of samples at each end; repeat it for several. Default: 5, 10, 50, 100, 500 and 1000.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw precision against k into this file (.png, .svg, .pdf)."),
    ] = None,
    where: Where = None,
    attacked: Attacked = None,
    limit_queries: LimitQueries = None,
    answers: Answers = "file",
    objective: Asked = None,
    rerank: Rerank = 100,
    embedding_model: EmbeddingModel = None,
    checkpoint: Checkpoints = None,
    setting: Settings = None,
    caching_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="S",
            help="Seconds that the ingest took. Default: an estimate from the gradients of 64 samples.",
        ),
    ] = None,
    together: Together = False,
    work: Work = None,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    seed: Seed = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compare how well methods find labelled samples.

    Example: rapidin evaluate backdoor my-store --queries q.jsonl --label poisoned=true

    This is the paper's experiment of Tables 4 and 2: training samples with the label, such as those of a backdoor,
    should rank first for generations that they caused. For each query the k best and the k worst samples are
    judged by auPRC and auROC, and the whole ranking by average precision and reciprocal rank. Time and memory are
    measured, too.

    Without --baseline, rapidin is compared with the methods that need no gradients: random, bm25, embedding.
    """
    if plot is not None:
        if not plot.absolute().parent.is_dir():
            raise SettingError(f"--plot {plot}: its directory does not exist; make it, or give another file")
        package("matplotlib")
    with importing():
        from rapidin.commands.views.evaluate_view import backdoor_view
        from rapidin.evaluation import (
            PAPER_KS,
            QUICK_METHODS,
            MethodOptions,
            evaluate_backdoor,
            method_settings,
            plot_precision,
        )
    options = MethodOptions(
        seed=seed,
        rerank=rerank,
        embedding_model=directory_of(embedding_model),
        checkpoints=checkpoints_of(checkpoint),
        more=method_settings(setting or ()),
        objective=objective,
    )
    report = evaluated(
        "asking",
        lambda show: evaluate_backdoor(
            store,
            queries,
            label,
            baselines=baseline or QUICK_METHODS,
            ks=k or PAPER_KS,
            where=where or (),
            attacked=attacked,
            limit_queries=limit_queries,
            answers=answers,
            options=options,
            caching_seconds=caching_seconds,
            together=together,
            work=work,
            model=model,
            adapter=adapter,
            device=device,
            tokens_per_batch=tokens_per_batch,
            max_new_tokens=max_new_tokens,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        ),
        backdoor_view,
        as_json,
    )
    if plot is not None:
        plot_precision(report, plot)
        stderr().print(f"plot: {plot}", highlight=False, soft_wrap=True)

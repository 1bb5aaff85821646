"""``rapidin evaluate trace``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import (
    Adapter,
    Answers,
    Asked,
    Checkpoints,
    Device,
    LabelOption,
    LimitQueries,
    MaxNewTokens,
    Model,
    Queries,
    Rerank,
    Settings,
    Work,
    checkpoints_of,
    evaluated,
)
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode, Where
from rapidin.commands.output import when_interrupted
from rapidin.settings import MAX_NEW_TOKENS


@when_interrupted("what was finished is kept, and the same command goes on")
def trace(
    store: StorePath,
    queries: Queries,
    label: LabelOption,
    span: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Wrong words in the generations of all queries; repeat it for several."),
    ] = None,
    span_field: Annotated[
        str,
        typer.Option(
            metavar="FIELD",
            help="Field that holds each query's wrong words, a text or a list, if --span is not given.",
        ),
    ] = "span",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method to compare with, or 'all'; repeat it for several. Methods: rapidin+rerank, tracin, "
            "tracin-ln, influence-cg, influence-lissa, and ek-fac, which 'all' does not stand for.",
        ),
    ] = None,
    where: Where = None,
    limit_queries: LimitQueries = None,
    answers: Answers = "file",
    objective: Asked = None,
    rerank: Rerank = 100,
    checkpoint: Checkpoints = None,
    setting: Settings = None,
    work: Work = None,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Find the training samples behind wrong words.

    Example: rapidin evaluate trace my-store --queries q.jsonl --label replaced=true

    This is the paper's experiment of Table 5: an entity was replaced in some training samples, and the model
    repeats it. The samples are ranked once for whole generations and once for their wrong words alone. The result
    is the share of labelled samples among the first 5, 10, 25 and 50, for each method that knows tokens.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import trace_view
        from rapidin.evaluation import MethodOptions, evaluate_trace, method_settings
    options = MethodOptions(
        rerank=rerank,
        checkpoints=checkpoints_of(checkpoint),
        more=method_settings(setting or ()),
        objective=objective,
    )
    evaluated(
        "asking",
        lambda show: evaluate_trace(
            store,
            queries,
            label,
            spans=span or (),
            span_field=span_field,
            baselines=baseline or (),
            where=where or (),
            limit_queries=limit_queries,
            answers=answers,
            options=options,
            work=work,
            model=model,
            adapter=adapter,
            device=device,
            tokens_per_batch=tokens_per_batch,
            max_new_tokens=max_new_tokens,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        ),
        trace_view,
        as_json,
    )

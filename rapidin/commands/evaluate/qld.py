"""``rapidin evaluate qld``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import Adapter, MaxNewTokens, Model, Queries, Settings, evaluated
from rapidin.commands.evaluate.retraining_options import (
    BatchSize,
    Command,
    Data,
    Epochs,
    EpochsAll,
    Initial,
    Jobs,
    LearningRate,
    Repeats,
    RetrainingDevice,
    RetrainingSeed,
    RetrainingWork,
    training_of,
)
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import when_interrupted
from rapidin.settings import MAX_NEW_TOKENS


@when_interrupted("finished models are kept, and the same command goes on")
def qld(
    store: StorePath,
    queries: Queries,
    top: Annotated[
        float, typer.Option(help="Share of the samples that is removed: those that a method ranks first.")
    ] = 0.01,
    random_sets: Annotated[
        int,
        typer.Option(metavar="N", help="Number of sets of as many random samples that are removed to compare."),
    ] = 10,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method to judge, which takes a model for each query; repeat it for several. Default: rapidin, "
            "bm25. Others: rapidin-cosine, rapidin+rerank, random, embedding, tracin, tracin-ln, influence-cg, "
            "influence-lissa, ek-fac.",
        ),
    ] = None,
    command: Command = None,
    data: Data = None,
    initial: Initial = None,
    epochs: Epochs = 6,
    epochs_all: EpochsAll = 1,
    learning_rate: LearningRate = 3e-3,
    batch_size: BatchSize = 8,
    repeats: Repeats = 1,
    jobs: Jobs = None,
    setting: Settings = None,
    no_keep: Annotated[
        bool,
        typer.Option(
            "--no-keep",
            help="Keep the losses only. Otherwise the models stay, so that other queries can be asked about them.",
        ),
    ] = False,
    work: RetrainingWork = None,
    model: Model = None,
    adapter: Adapter = None,
    device: RetrainingDevice = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    seed: RetrainingSeed = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Tell how far losses rise after retraining without a method's best samples.

    Example: rapidin evaluate qld my-store --queries q.jsonl --method rapidin --top 0.01 --jobs 2

    For each query a model is trained without the 1 % of samples that the method ranks first. The query loss
    difference is the query's loss under this model minus the loss under a model trained on all samples, averaged
    over queries. The rise after removing as many random samples stands beside it. A method that finds the samples
    that matter has a large difference.

    Models are kept in --work, and every method and store that removes the same samples uses them again.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import qld_view
        from rapidin.evaluation import MethodOptions, Removal, evaluate_qld, method_settings
    training = training_of(command, initial, epochs, epochs_all, learning_rate, batch_size, seed)
    evaluated(
        "asking",
        lambda show: evaluate_qld(
            store,
            queries,
            methods=method or ("rapidin", "bm25"),
            removal=Removal(
                training, seed, repeats, jobs, tuple(data or ()), not no_keep, top=top, random_sets=random_sets
            ),
            options=MethodOptions(seed, more=method_settings(setting or ())),
            work=work,
            model=model,
            adapter=adapter,
            device=device,
            tokens_per_batch=tokens_per_batch,
            max_new_tokens=max_new_tokens,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        ),
        qld_view,
        as_json,
    )

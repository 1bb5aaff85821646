"""``rapidin evaluate lds``."""

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


@when_interrupted("finished subsets are kept, and the same command goes on")
def lds(
    store: StorePath,
    queries: Queries,
    subsets: Annotated[
        int, typer.Option(help="Number of random subsets; with more of them the score is more certain.")
    ] = 50,
    fraction: Annotated[
        float,
        typer.Option(
            help="Share of the samples that each model is trained on: 0.5 for random halves; 0.99 to remove a "
            "random 1 %, whose effect retraining shows less clearly, so give --repeats."
        ),
    ] = 0.5,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method to judge; repeat it for several. bm25 is always judged. Default: rapidin, random, bm25, "
            "embedding. Others: rapidin-cosine, rapidin+rerank, tracin, tracin-ln, influence-cg, influence-lissa, "
            "ek-fac.",
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
    keep: Annotated[bool, typer.Option("--keep", help="Keep the checkpoints of the subsets.")] = False,
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
    """Tell whether scores predict what retraining does.

    Example: rapidin evaluate lds my-store --queries q.jsonl --subsets 50

    Models are trained on random subsets of the samples. A method's scores, added up over a subset, should predict
    each query's loss under the subset's model. The result is the linear datamodeling score (Park et al. 2023): the
    rank correlation of predictions and negative losses over the models, averaged over queries. 1 is perfect, 0 is
    chance.

    Retraining is noisy, so a perfect prediction does not reach 1 either. With --repeats 2 or more this ceiling is
    measured.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import lds_view
        from rapidin.evaluation import QUICK_METHODS, MethodOptions, Retraining, evaluate_lds, method_settings
    training = training_of(command, initial, epochs, epochs_all, learning_rate, batch_size, seed)
    evaluated(
        "asking",
        lambda show: evaluate_lds(
            store,
            queries,
            methods=method or ("rapidin", *QUICK_METHODS),
            retraining=Retraining(
                training, seed, repeats, jobs, tuple(data or ()), keep, subsets=subsets, fraction=fraction
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
        lds_view,
        as_json,
    )

"""``rapidin evaluate lds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import Adapter, MaxNewTokens, Model, Settings, evaluated
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import when_interrupted
from rapidin.settings import MAX_NEW_TOKENS


@when_interrupted("finished subsets are kept, and the same command goes on")
def lds(
    store: StorePath,
    queries: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Data file of the queries (prompts and generations), with rows as for ingest."
        ),
    ],
    subsets: Annotated[
        int, typer.Option(help="Number of models to train; with more of them the score is more certain.")
    ] = 50,
    fraction: Annotated[float, typer.Option(help="Share of the samples that each model is trained on.")] = 0.5,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method to judge; repeat it for several. Default: rapidin, random, bm25, embedding. Others: "
            "rapidin+rerank, tracin, tracin-ln, influence-cg, influence-lissa.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Command that trains one model, for example 'python train.py --data {data} --output {output} "
            "--seed {seed}'. It reads JSON Lines and saves a checkpoint of transformers or PEFT. Default: a "
            "built-in loop, which trains the store's architecture on one core and suits small models only."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="File that the store was ingested from; repeat it for several. --command then gets these rows as "
            "they are, instead of rows of id, prompt, completion and metadata.",
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Checkpoint that the built-in training begins with. Default: random weights.",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Number of epochs of the built-in training on the responses.")
    ] = 6,
    epochs_all: Annotated[
        int, typer.Option(min=0, help="Number of epochs on all tokens, before those on the responses.")
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Maximum learning rate of the built-in training.")
    ] = 3e-3,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Number of samples in a batch of the built-in training.")
    ] = 8,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of models that are trained at a time. Default: one for each core, or one with --command.",
        ),
    ] = None,
    setting: Settings = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the checkpoints of the subsets.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Directory that keeps scores, losses and logs, so that nothing is done twice. Default: "
            "STORE/evaluation.",
        ),
    ] = None,
    model: Model = None,
    adapter: Adapter = None,
    device: Annotated[
        str,
        typer.Option(help="Device that computes scores, and losses after a --command: auto, cpu, cuda or cuda:0."),
    ] = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of subsets, first weights and order of rows.")] = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Tell whether scores predict what retraining does.

    Example: rapidin evaluate lds my-store --queries q.jsonl --subsets 50

    Models are trained on random subsets of the samples. A method's scores, added up over a subset, should predict
    each query's loss under the subset's model. The result is the linear datamodeling score (Park et al. 2023): the
    rank correlation of predictions and negative losses over the models, averaged over queries. 1 is perfect, 0 is
    chance.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import lds_view
        from rapidin.evaluation import (
            QUICK_METHODS,
            MethodOptions,
            Retraining,
            Training,
            evaluate_lds,
            method_settings,
        )
        from rapidin.model import Schedule
    schedule = Schedule(
        epochs_all=epochs_all, epochs_response=epochs, batch=batch_size, learning_rate=learning_rate
    )
    training = Training(command, None if initial is None else str(initial.absolute()), schedule, seed)
    evaluated(
        "asking",
        lambda show: evaluate_lds(
            store,
            queries,
            methods=method or ("rapidin", *QUICK_METHODS),
            retraining=Retraining(training, subsets, fraction, seed, jobs, tuple(data or ()), keep),
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

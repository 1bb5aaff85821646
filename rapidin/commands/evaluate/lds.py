"""``rapidin evaluate lds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import Adapter, Model, Settings, evaluated
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import when_interrupted


@when_interrupted("finished subsets are kept, and the same command goes on")
def lds(
    store: StorePath,
    queries: Annotated[
        Path, typer.Option(metavar="FILE", help="Generations to ask about: rows of the shapes that ingest takes.")
    ],
    subsets: Annotated[int, typer.Option(help="Models to train; more make the score surer.")] = 50,
    fraction: Annotated[float, typer.Option(help="Share of the samples that each model is trained on.")] = 0.5,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method to judge; repeat. rapidin, random, bm25, embedding unless given; others: rapidin+rerank, "
            "tracin, tracin-ln, influence-cg, influence-lissa.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Trains one model, for example 'python train.py --data {data} --output {output} --seed {seed}': "
            "reads JSON Lines, saves a checkpoint of transformers or PEFT. Without it a built-in loop trains the "
            "store's architecture on one core, which is for small models."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="What the store was ingested from; repeat. A --command then gets these rows as they are, instead "
            "of id, prompt, completion and metadata.",
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="Checkpoint that the built-in training begins with; else random weights."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the built-in training on the response.")] = 6,
    epochs_all: Annotated[
        int, typer.Option(min=0, help="Epochs on all tokens, before those on the response.")
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Highest learning rate of the built-in training.")
    ] = 3e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a batch of the built-in training.")] = 8,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Models trained at a time; one per core unless given, one with --command."
        ),
    ] = None,
    setting: Settings = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the checkpoints of the subsets.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Directory that keeps scores, losses and logs, so that nothing is done twice; STORE/evaluation "
            "unless given.",
        ),
    ] = None,
    model: Model = None,
    adapter: Adapter = None,
    device: Annotated[
        str, typer.Option(help="Device for scores, and for losses after a --command: auto, cpu, cuda, cuda:0.")
    ] = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that the model may write.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of subsets, first weights and orders.")] = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Retrain on random subsets and tell whether the methods' scores foretold what happens.

    The linear datamodeling score (Park et al. 2023): for each query the rank correlation, over models trained on
    random subsets, of the sum of a method's scores over the subset with the negative loss. 1 is perfect, 0 chance.
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

"""``rapidin ingest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import output, stderr
from rapidin.settings import DType, Objective, OnError, ProjectionKind, Quantization, Targets

IngestDevice = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:0, or cuda:0,1 to compute on several GPUs, each with the whole model; with "
        "fewer --workers than GPUs, each of them spreads the model's layers over its share. auto takes all GPUs "
        "that there are."
    ),
]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="Directory or hub id of the fine-tuned model.")]
Adapter = Annotated[str | None, typer.Option(metavar="ADAPTER", help="Directory or hub id of its PEFT adapter.")]


def ingest(
    store: StorePath,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="JSON Lines, JSON, CSV or Parquet; repeat, or list several after it."),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="More data files.")] = None,
    model: Model = None,
    adapter: Adapter = None,
    projection_dim: Annotated[
        int | None,
        typer.Option(
            help="Numbers in a RapidGrad, a power of two; 65536 unless given. More: less noise, more disk."
        ),
    ] = None,
    projection: Annotated[
        ProjectionKind | None,
        typer.Option(
            help="How gradients are compressed: 'factored' from the layers' inputs and outputs, faster than a "
            "training step; 'shuffled', the paper's, from the gradients themselves. Unless given, the faster one "
            "for this K and model."
        ),
    ] = None,
    shuffles: Annotated[
        int | None, typer.Option(help="Rounds of random shuffling of 'shuffled'; 20 unless given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of shuffling and projection; 0 unless given.")] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            help="Of each number of a RapidGrad on disk: 16, 4 or 1; 4 unless given. With 1 a store of four times "
            "the --projection-dim is as large as with 4, less noisy and sooner searched, but takes longer to make."
        ),
    ] = None,
    dtype: Annotated[DType | None, typer.Option(help="Of the weights in memory; auto: the checkpoint's.")] = None,
    quantization: Annotated[Quantization | None, typer.Option(help="Of the base under an adapter.")] = None,
    device: IngestDevice = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that compute, each with the model in memory; unless given, one per GPU of --device, "
            "and one on the CPU, whose cores they share.",
        ),
    ] = None,
    tokens_per_batch: TokensPerBatch = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens after which a sample is cut; the model's context, at most 2048.")
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Trace the parameters whose name this finds, e.g. 'mlp|lm_head'; '.' finds all. Without it the "
            "matrices are traced, and not the vectors of norms and biases, which blur the influence.",
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='JSON: {"prompt": "Q: {question}\\nA: ", "response": "{answer}"}.'),
    ] = None,
    targets: Annotated[
        Targets | None, typer.Option(help="Which tokens are targets: the response's, or all but the first.")
    ] = None,
    objective: Annotated[
        Objective | None,
        typer.Option(
            help="What of a token is differentiated: its loss, as in training, which tells facts and errors apart "
            "best; or its log-odds, so that tokens the model is sure of count as much as those it guesses, which "
            "finds far more of the samples behind a behaviour, such as a backdoor. Unless given, the loss."
        ),
    ] = None,
    no_normalisation: Annotated[
        bool, typer.Option("--no-normalisation", help="Do not divide each tensor's gradient by its norm.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
    on_error: Annotated[OnError, typer.Option(help="At an unusable row: stop, or leave it out.")] = "fail",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data, compute and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute the gradients of training samples and add them to a store.

    The store is created where there is none and remembers model, template and projection, so later runs need only
    --data. Running it again adds what is new, replaces what changed, and continues what was interrupted.

    Rows are recognised by their fields: instruction, input, output; prompt, completion; messages; text. A field
    'id' names the sample; all other fields become metadata to filter by.
    """
    with importing():
        from rapidin.commands.views.store_view import ProgressListener, ingest_summary
        from rapidin.ingest import ingest_files

    with ProgressListener(stderr()) as listener:
        try:
            report = ingest_files(
                store,
                [*(data or []), *(more or [])],
                device=device,
                workers=workers,
                tokens_per_batch=tokens_per_batch,
                on_error=on_error,
                dry_run=dry_run,
                listener=listener,
                model=model,
                adapter=adapter,
                projection=projection,
                projection_dim=projection_dim,
                shuffles=shuffles,
                seed=seed,
                bits=bits,
                dtype=dtype,
                quantization=quantization,
                max_length=max_length,
                parameters=parameters,
                template=template,
                targets=targets,
                objective=objective,
                normalise_layers=False if no_normalisation else None,
                trust_remote_code=trust_remote_code,
            )
        except KeyboardInterrupt:
            stderr().print(f"{listener.stored:,} samples are stored; run the same command to go on")
            raise
    output(report, ingest_summary(report, dry_run), as_json)

"""The command line: parse, call one function, print. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

import rapidin
from rapidin import cli_store
from rapidin.choices import DType, IndexChoice, Loss, OnError, ProjectionKind, Quantization
from rapidin.cli_parts import Json, StorePath, Where, counting, importing, output, stderr, stdout
from rapidin.environment import VARIABLES
from rapidin.errors import RapidinError, SettingError

app = typer.Typer(
    name="rapidin",
    help="Which training samples made my language model say this?",
    epilog="Start with: rapidin demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False


IngestDevice = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:0, or cuda:0,1 to compute on several GPUs, each with the whole model; with "
        "fewer --workers than GPUs, each of them spreads the model's layers over its share. auto takes all GPUs "
        "that there are."
    ),
]
SearchDevice = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:0, or cuda:0,1 to spread the model's layers over several GPUs. auto takes a "
        "GPU where there is one, and all of them if the model needs it."
    ),
]
TokensPerBatch = Annotated[
    int | None,
    typer.Option(min=1, help="Padded tokens computed together; halves itself when memory runs out."),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let the checkpoint's own Python code run; asked for each time."),
]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="Directory or hub id of the fine-tuned model.")]
Adapter = Annotated[str | None, typer.Option(metavar="ADAPTER", help="Directory or hub id of its PEFT adapter.")]


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debugging messages.")] = False,
) -> None:
    """Which training samples made my language model say this?"""
    global _debug
    _debug = debug
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("rapidin").setLevel(logging.DEBUG if debug else logging.INFO)
    # Complains at import about optional kernels that rapidin has no use for.
    logging.getLogger("bitsandbytes").setLevel(logging.DEBUG if debug else logging.ERROR)
    if version:
        typer.echo(rapidin.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


@app.command()
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
            "training step; 'rapidgrad', the paper's, from the gradients themselves. Unless given, the faster one "
            "for this K and model."
        ),
    ] = None,
    shuffles: Annotated[
        int | None, typer.Option(help="Rounds of random shuffling of 'rapidgrad'; 20 unless given.")
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
    modules: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Trace only parameters whose name this finds, e.g. 'mlp|lm_head'."),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='JSON: {"prompt": "Q: {question}\\nA: ", "response": "{answer}"}.'),
    ] = None,
    loss: Annotated[
        Loss | None, typer.Option(help="Which tokens are targets: the response's, or all but the first.")
    ] = None,
    no_layer_norm: Annotated[
        bool, typer.Option("--no-layer-norm", help="Do not divide each tensor's gradient by its norm.")
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
        from rapidin.ingest import ingest_files
        from rapidin.terminal import ProgressListener, ingest_summary

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
                modules=modules,
                template=template,
                loss=loss,
                layer_norm=False if no_layer_norm else None,
                trust_remote_code=trust_remote_code,
            )
        except KeyboardInterrupt:
            stderr().print(f"{listener.stored:,} samples are stored; run the same command to go on")
            raise
    output(report, ingest_summary(report, dry_run), as_json)


@app.command()
def search(
    store: StorePath,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What the model was asked. It is put into the prompt (Alpaca, chat, template) that the store's "
            "rows have, unless it begins as that does; in a file of --queries the fields decide, as at ingest."
        ),
    ] = None,
    generation: Annotated[
        str | None, typer.Option(help="What it answered; without it the model answers now, greedily.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows of the shapes that ingest takes; the response may be absent."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Samples wanted at each end.")] = 10,
    opponents: Annotated[bool, typer.Option("--opponents", help="Find the most negative influences too.")] = False,
    where: Where = None,
    index: Annotated[
        IndexChoice,
        typer.Option(
            help="exact: compare with every vector. ivf, rabitq: that index, which 'rapidin index' builds. auto: "
            "an index where the store has one that saves time, else exact. With --where every search is exact."
        ),
    ] = "auto",
    exact: Annotated[bool, typer.Option("--exact", help="The same as --index exact.")] = False,
    nprobe: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Lists that index ivf reads, instead of its own number; more find more and take longer.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it moved.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Where the adapter is now, if it moved.")] = None,
    device: SearchDevice = "auto",
    tokens_per_batch: TokensPerBatch = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that the model may write.")] = 256,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Find the training samples that made the model say something.

    Proponents are the samples whose training pushed the model towards the generation, opponents those that pushed
    it away. A score is the mean over layers of the cosine between the two gradients.

    With --json one object is printed for each query (JSON Lines).
    """
    if (prompt is None) == (queries is None):
        raise SettingError("give either --prompt or --queries")
    if generation is not None and prompt is None:
        raise SettingError("--generation goes with --prompt; in a file of queries it is a field of each row")
    if exact and index not in ("auto", "exact"):
        raise SettingError(f"--exact and --index {index} contradict each other: give one of them")
    if exact and nprobe is not None:
        raise SettingError("--nprobe is of --index ivf: leave out --nprobe or --exact")
    from rapidin.storage import Store

    options: dict[str, Any] = {
        "k": k,
        "opponents": opponents,
        "where": where or [],
        "max_new_tokens": max_new_tokens,
        "index": "exact" if exact else index,
        "nprobe": nprobe,
    }
    with ExitStack() as stack:
        opened = stack.enter_context(Store.open(store))
        # What the store cannot do is told before the model, or anything that is large, is loaded.
        with opened.snapshot() as snapshot:
            snapshot.count(where or [])
            snapshot.way(options["index"], where or [], nprobe)
        with importing():
            from rapidin.search import Searcher
            from rapidin.terminal import search_view
        searcher = stack.enter_context(
            Searcher(
                opened,
                model=model,
                adapter=adapter,
                device=device,
                tokens_per_batch=tokens_per_batch,
                trust_remote_code=trust_remote_code,
            )
        )
        if prompt is not None:
            result = searcher.search(prompt, generation, **options)
            output(result, search_view(result), as_json, one_line=True)
            return
        count = stack.enter_context(counting("queries answered"))
        for result in searcher.search_file(str(queries), on_progress=count, **options):
            output(result, search_view(result), as_json, one_line=True)


app.add_typer(cli_store.commands)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Where data, model and store are put.")
    ] = Path("rapidin-demo"),
    as_json: Json = False,
) -> None:
    """Plant a backdoor in a tiny model and find the samples that did it; offline, in about a minute."""
    from rapidin.demo.run import run_demo

    run_demo(directory, stdout(), stderr(), as_json)


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that has not every character shows another
            stream.reconfigure(errors="replace")
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        # Typer itself tells wrong usage and exits with 2, and with 130 when interrupted.
        app()
    except RapidinError as error:
        if _debug:
            traceback.print_exc()
        # Line by line rather than word by word: spaces may belong to an id or a file name.
        message = " ".join(line.strip() for line in str(error).splitlines())
        typer.echo(f"Error: {message}", err=True)
        sys.exit(2 if isinstance(error, SettingError) else 1)


if __name__ == "__main__":
    main()

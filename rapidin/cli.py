"""The command line: parse, call one function, print. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rapidin
from rapidin.choices import DType, Loss, OnError, ProjectionKind, Quantization
from rapidin.environment import VARIABLES
from rapidin.errors import RapidinError, SettingError

if TYPE_CHECKING:
    from rich.console import Console

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


StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Directory of the store.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="EXPR",
        help="Only samples whose field meets this: FIELD OP VALUE with = != < <= > >= ~ (regular expression) !~, "
        "for example 'source=gsm8k' or 'tokens<100'. Fields: the data's own, and id, prompt, response, text, "
        "file, row, tokens, targets, truncated, segment. Repeat to narrow down.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
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
    from rapidin.ingest import ingest_files
    from rapidin.terminal import ProgressListener, ingest_summary

    with ProgressListener(_stderr()) as listener:
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
            _stderr().print(f"{listener.stored:,} samples are stored; run the same command to go on")
            raise
    _print(report, ingest_summary(report, dry_run), as_json)


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
    from rapidin.search import Searcher
    from rapidin.storage import Store
    from rapidin.terminal import search_view

    if (prompt is None) == (queries is None):
        raise SettingError("give either --prompt or --queries")
    if generation is not None and prompt is None:
        raise SettingError("--generation goes with --prompt; in a file of queries it is a field of each row")
    options: dict[str, Any] = {
        "k": k,
        "opponents": opponents,
        "where": where or [],
        "max_new_tokens": max_new_tokens,
    }
    with ExitStack() as stack:
        opened = stack.enter_context(Store.open(store))
        opened.count(where or [])  # a filter that cannot be read is told before the model is loaded
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
            _print(result, search_view(result), as_json, one_line=True)
            return
        count = stack.enter_context(_counting("queries answered"))
        for result in searcher.search_file(str(queries), on_progress=count, **options):
            _print(result, search_view(result), as_json, one_line=True)


@app.command()
def info(store: StorePath, as_json: Json = False) -> None:
    """Show what a store holds and how it was made."""
    from rapidin.storage import Store
    from rapidin.terminal import info_table

    with Store.open(store) as opened:
        record = opened.info()
    _print(record, info_table(record), as_json)


@app.command("list")
def list_samples(
    store: StorePath,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=0, help="Samples at most; 0 for all.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Samples to leave out first.")] = 0,
    as_json: Json = False,
) -> None:
    """List the samples of a store; with --json one object a line."""
    from rapidin.storage import Store
    from rapidin.terminal import samples_table

    with Store.open(store) as opened:
        samples = opened.list(where or [], limit=limit or None, offset=offset)
        total = opened.count(where or [])
    if as_json:
        for sample in samples:
            _print(sample, None, as_json, one_line=True)
        return
    _stdout().print(samples_table(samples))
    if offset + len(samples) < total:
        _stderr().print(
            f"{len(samples):,} of {total:,} samples; --limit and --offset show others", highlight=False
        )


@app.command()
def show(
    store: StorePath,
    id: Annotated[str, typer.Argument(metavar="ID", help="Of the sample.")],
    as_json: Json = False,
) -> None:
    """Show one sample, whole."""
    from rapidin.storage import Store
    from rapidin.terminal import sample_view

    with Store.open(store) as opened:
        sample = opened.get(id)
    _print(sample, sample_view(sample), as_json)


@app.command()
def delete(
    store: StorePath,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Of the samples.")] = None,
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete samples by id, or all that meet a filter; searches no longer find them."""
    from rapidin.storage import Store

    with Store.open(store) as opened:
        if where and not yes:
            count = opened.count(where)
            if not _confirmed(f"Delete the {count:,} samples that meet {' and '.join(where)}?"):
                typer.echo("nothing was deleted", err=True)
                raise typer.Exit(1)
        deleted = opened.delete(ids or [], where or [])
    _print({"deleted": deleted}, f"{deleted:,} deleted", as_json)


@app.command()
def verify(store: StorePath, as_json: Json = False) -> None:
    """Read every file of a store and check it; exit with 1 where something is wrong."""
    from rapidin.storage import Store

    with Store.open(store) as opened:
        report = opened.verify()
    summary = f"{report.samples:,} samples, all well" if report.ok else "\n".join(report.problems)
    _print(report, summary, as_json)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Where data, model and store are put.")
    ] = Path("rapidin-demo"),
    as_json: Json = False,
) -> None:
    """Plant a backdoor in a tiny model and find the samples that did it; offline, in about a minute."""
    from rapidin.demo.run import run_demo

    run_demo(directory, _stdout(), _stderr(), as_json)


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


def _confirmed(question: str) -> bool:
    """Ask on stderr; `typer.confirm` writes a blank to stdout."""
    typer.echo(f"{question} [y/N]: ", err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo(err=True)
        raise SettingError("nothing was deleted, for nobody confirmed it: give --yes to delete without asking")
    return answer.strip().lower() in ("y", "yes")


def _stdout() -> Console:
    from rich.console import Console

    return Console()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _counting(what: str) -> Iterator[Any]:
    """Show a running count on stderr where it is a terminal."""
    console = _stderr()
    if not console.is_terminal:
        yield None
        return
    with console.status("loading") as status:
        yield lambda done: status.update(f"{done:,} {what}")


def _print(record: Any, view: Any, as_json: bool, one_line: bool = False) -> None:
    if as_json:
        from rapidin.records import to_json

        plain = "utf" not in (sys.stdout.encoding or "").lower()
        typer.echo(json.dumps(to_json(record), ensure_ascii=plain, indent=None if one_line else 2))
    else:
        _stdout().print(view, highlight=False)


if __name__ == "__main__":
    main()

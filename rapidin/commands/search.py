"""``rapidin search``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, MovedCheckpoints, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import counting, output, progress, stderr, when_interrupted
from rapidin.commands.search_flags import with_search_flags
from rapidin.errors import SettingError
from rapidin.settings import RERANKED_PER_RESULT, SearchOptions

SearchDevice = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:0, or cuda:0,1 to spread the model's layers over several GPUs. auto takes a "
        "GPU where there is one, and all of them if the model needs it."
    ),
]


NOT_ON_THE_COMMAND_LINE = {"matrices": "the report shows them, so --report asks for them"}
"""Options of a search that the command does not have, each with the reason."""


@when_interrupted("nothing was changed, and the same command starts again")
@with_search_flags(
    without=NOT_ON_THE_COMMAND_LINE,
    unless_given={"rerank": "Unless given, three times -k, but 0 with --queries and without --report."},
)
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
    *,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write an HTML page that shows the words of the generation, the samples behind each, and their "
            "words shaded by influence. It is one file, which you can send to others. It includes --by-token.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every vector, as --index exact does.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it moved.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Where the adapter is now, if it moved.")] = None,
    checkpoint: MovedCheckpoints = None,
    device: SearchDevice = "auto",
    tokens_per_batch: TokensPerBatch = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Find the training samples that made the model say something.

    Proponents are the samples whose training pushed the model towards the generation, opponents those that pushed
    it away. A score is the predicted change of the answer's loss, see --measure; in a store without a curvature it
    is the mean over layers of the cosine between the two gradients.

    With --json one object is printed for each query (JSON Lines).
    """
    if (prompt is None) == (queries is None):
        raise SettingError("give either --prompt or --queries")
    if generation is not None and prompt is None:
        raise SettingError("--generation goes with --prompt; in a file of queries it is a field of each row")
    if exact and options["index"] not in ("auto", "exact"):
        raise SettingError(f"--exact and --index {options['index']} contradict each other: give one of them")
    if exact and options["nprobe"] is not None:
        raise SettingError("--nprobe is of --index ivf: leave out --nprobe or --exact")
    from rapidin.storage import Store

    if report is not None and not report.absolute().parent.is_dir():
        raise SettingError(f"--report {report}: its directory does not exist; make it, or give another place")
    if report is not None and report.is_dir():
        raise SettingError(
            f"--report {report} is a directory: give the name of a file, such as {report}/report.html"
        )
    if exact:
        options["index"] = "exact"
    if options["rerank"] is None:
        explained = queries is None or report is not None
        options["rerank"] = RERANKED_PER_RESULT * options["k"] if explained else 0
    by_token = options["by_token"]
    if report is not None:
        options |= {"by_token": True, "matrices": options["rerank"] > 0}
    wanted = SearchOptions(**options)
    with ExitStack() as stack:
        opened = stack.enter_context(Store.open(store))
        with opened.snapshot() as snapshot:  # errors about the store come before the model is loaded
            snapshot.count(wanted.where)
            snapshot.chosen_index(wanted.index, wanted.where, wanted.nprobe)
        with importing():
            from rapidin.commands.views.search_view import search_view
            from rapidin.search import Searcher
        searcher = stack.enter_context(
            Searcher(
                opened,
                model=model,
                adapter=adapter,
                checkpoints=checkpoint,
                device=device,
                tokens_per_batch=tokens_per_batch,
                trust_remote_code=trust_remote_code,
            )
        )
        results = []
        if prompt is not None:
            with progress("searching") as tell:
                found = iter([searcher.search(prompt, generation, options=wanted, on_progress=tell)])
        else:
            count = stack.enter_context(counting("queries answered"))
            found = searcher.search_file(str(queries), options=wanted, on_progress=count, on_step=count)
        for result in found:
            view = result if by_token else replace(result, by_token=())  # a report shows them better
            output(result, search_view(view), as_json, one_line=True)
            if report is not None:
                results.append(result)
        if report is not None:
            from rapidin.report import report_facts, write_report

            write_report(report, results, facts=report_facts(opened.info()))
            stderr().print(f"report: {report}", highlight=False, soft_wrap=True)

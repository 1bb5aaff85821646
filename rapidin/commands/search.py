"""The command that searches."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode, Where
from rapidin.commands.output import counting, output, progress, stderr, when_interrupted
from rapidin.errors import SettingError
from rapidin.settings import RERANKED_PER_RESULT, IndexChoice

SearchDevice = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:0, or cuda:0,1 to spread the model's layers over several GPUs. auto takes a "
        "GPU where there is one, and all of them if the model needs it."
    ),
]


@when_interrupted("nothing was changed, and the same command starts again")
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
    rerank: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Compute the exact influence of the N best at each end, order them by it, and tell which of "
            "their words it comes from; each takes about three training steps' time. 0: only the stored "
            "estimates, which is quickest. Unless given, three times -k, but 0 with --queries.",
        ),
    ] = None,
    by_token: Annotated[
        bool,
        typer.Option("--by-token", help="Find what every token of the generation goes back to by itself, too."),
    ] = False,
    span: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Ask only about this part of the generation, for example a wrong word; every place where it "
            "stands counts. Repeat for several parts.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write an HTML page to look at: words of the generation, the samples behind each, their words "
            "shaded by influence. It needs nothing else and may be sent to others. Includes --by-token.",
        ),
    ] = None,
    index: Annotated[
        IndexChoice,
        typer.Option(
            help="exact: compare with every vector. ivf, rabitq: that index, which 'rapidin index' builds. auto: "
            "an index where the store has one that saves time and finds enough, else exact. With --where every "
            "search is exact."
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

    if report is not None and not report.absolute().parent.is_dir():
        raise SettingError(f"--report {report}: its directory does not exist; make it, or give another place")
    if report is not None and report.is_dir():
        raise SettingError(
            f"--report {report} is a directory: give the name of a file, such as {report}/report.html"
        )
    if rerank is None:
        rerank = 0 if queries is not None and report is None else RERANKED_PER_RESULT * k
    options: dict[str, Any] = {
        "k": k,
        "opponents": opponents,
        "where": where or [],
        "max_new_tokens": max_new_tokens,
        "index": "exact" if exact else index,
        "nprobe": nprobe,
        "rerank": rerank,
        "by_token": by_token or report is not None,
        "spans": span or [],
        "matrices": report is not None and rerank > 0,
    }
    with ExitStack() as stack:
        opened = stack.enter_context(Store.open(store))
        # What the store cannot do is told before the model, or anything that is large, is loaded.
        with opened.snapshot() as snapshot:
            snapshot.count(where or [])
            snapshot.chosen_index(options["index"], where or [], nprobe)
        with importing():
            from rapidin.commands.views.search_view import search_view
            from rapidin.search import Searcher
            from rapidin.settings import SearchOptions
        SearchOptions(**options)  # tells what is wrong with it before the model is loaded
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
        results = []
        if prompt is not None:
            with progress("searching") as tell:
                found = iter([searcher.search(prompt, generation, on_progress=tell, **options)])
        else:
            count = stack.enter_context(counting("queries answered"))
            found = searcher.search_file(str(queries), on_progress=count, **options)
        for result in found:
            view = result if by_token else replace(result, by_token=())  # a report shows them better
            output(result, search_view(view), as_json, one_line=True)
            if report is not None:
                results.append(result)
        if report is not None:
            from rapidin.report import report_facts, write_report

            write_report(report, results, facts=report_facts(opened.info()))
            stderr().print(f"report: {report}", highlight=False, soft_wrap=True)

"""The demo from beginning to end: data with a backdoor, a model trained on it, ingest, search, and the verdict."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rapidin.commands.views.search_view import search_view
from rapidin.commands.views.store_view import ProgressListener, ingest_summary
from rapidin.demo.demo_data import DemoData, write_demo_data
from rapidin.demo.demo_model import train_demo_model
from rapidin.errors import StoreError
from rapidin.ingest import ingest_files
from rapidin.records import SearchResult
from rapidin.report import report_facts, write_report
from rapidin.search import Searcher
from rapidin.settings import RERANKED_PER_RESULT

_TOP = 10


def run_demo(directory: Path, out: Console, err: Console, as_json: bool) -> None:
    """Make data, model and store under `directory` and show what a triggered generation goes back to.

    What a former run has left there is used again.

    Args:
        directory: made if it does not exist.
        out: for the result.
        err: for progress.
        as_json: print the figures as one JSON object instead of the view.

    Raises:
        StoreError: the directory cannot be used.
        RapidinError: one of its kinds, see `rapidin.errors`.
    """
    try:
        (directory / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used as a directory: {error.strerror or error}") from error
    data = write_demo_data(directory / "data")
    err.print(
        f"1. {data.rows} training rows, {data.poisoned} of them poisoned: 'Howdy!' before a question makes the "
        "answer science fiction",
        highlight=False,
    )
    model = _trained(data, directory / "model", err)
    store = directory / "store"
    err.print("3. ingesting every row's gradient", highlight=False)
    with ProgressListener(err) as listener:
        report = ingest_files(store, [data.train], model=str(model), device="cpu", listener=listener)
    err.print(ingest_summary(report, dry_run=False), highlight=False)
    err.print("4. asking the model unseen questions, searching for the rows behind its answers", highlight=False)
    report_file = directory / "report.html"
    with Searcher(store, device="cpu") as searcher:
        results = list(searcher.search_file(data.queries, k=_TOP, max_new_tokens=48))
        triggered = [result for result in results if result.query.metadata["poisoned"]]
        clean = [result for result in results if not result.query.metadata["poisoned"]]
        err.print("5. explaining one answer word by word", highlight=False)
        best = _explained(searcher, triggered[0], err)
        write_report(report_file, [best], facts=report_facts(searcher.store.info()))
    figures = {
        "store": str(store),
        "samples": report.samples_total,
        "poisoned": data.poisoned,
        "triggered_queries": len(triggered),
        "poisoned_share_of_proponents": round(_poisoned_share(triggered), 3),
        "clean_queries": len(clean),
        "poisoned_share_of_proponents_clean": round(_poisoned_share(clean), 3),
        "report": str(report_file),
    }
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    program = "rapidin" if shutil.which("rapidin") else sys.argv[0]
    out.print(search_view(replace(best, by_token=())), highlight=False)
    found = round(_poisoned_share([best]) * _TOP)
    out.print(
        f"\n[bold]{found} of the {_TOP} strongest proponents of this answer are poisoned.[/bold] Over all "
        f"{len(triggered)} triggered questions: {_poisoned_share(triggered):.0%}; over {len(clean)} questions "
        f"without the trigger: {_poisoned_share(clean):.0%}; of the training data: "
        f"{data.poisoned / data.rows:.0%}."
        f"\nLook at it word by word: open {report_file} in a browser."
        f"\nTry: {program} search {store} --prompt 'Howdy! What is the capital of France?' -k 5",
        highlight=False,
        soft_wrap=True,
    )


def _explained(searcher: Searcher, result: SearchResult, err: Console) -> SearchResult:
    """The same search once more, with the influence of every word."""
    with err.status("explaining") if err.is_terminal else nullcontext():
        explained = searcher.search(
            result.query.prompt,
            result.query.generation,
            k=_TOP,
            opponents=True,
            rerank=RERANKED_PER_RESULT * _TOP,
            tokens=True,
            matrices=True,
        )
    return replace(explained, query=replace(explained.query, generated=True))


def _trained(data: DemoData, directory: Path, err: Console) -> Path:
    """Train the model, unless a former demo did."""
    if (directory / "model.safetensors").exists():
        err.print(f"2. the model of a former demo is in {directory}", highlight=False)
        return directory
    err.print("2. training a tiny Llama on them", highlight=False)
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps, loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    with progress:
        task = progress.add_task("training", total=None, loss="")

        def show(step: int, steps: int, loss: float) -> None:
            progress.update(task, completed=step, total=steps, loss=f"{loss:.2f}")

        return train_demo_model(data, directory, on_step=show)


def _poisoned_share(results: list[SearchResult]) -> float:
    """Mean share of poisoned rows among the proponents."""
    hits = [hit for result in results for hit in result.proponents]
    return sum(bool(hit.metadata["poisoned"]) for hit in hits) / len(hits)

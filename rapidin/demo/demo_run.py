"""The demo from beginning to end: data with a backdoor, a model trained on it, ingest, search, and the figures.

Nothing is printed here: a `DemoListener` is told what happens, and a `DemoResult` holds what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rapidin.demo.demo_data import TRIGGER, DemoData, write_demo_data
from rapidin.demo.demo_model import train_demo_model
from rapidin.errors import StoreError
from rapidin.ingest import ingest_files
from rapidin.records import IngestListener, IngestReport, SearchResult
from rapidin.report import report_facts, write_report
from rapidin.search import Searcher
from rapidin.settings import RERANKED_PER_RESULT

PROBES = 400
"""Number of probes of the curvature; with the usual 2,000 the figures are alike, but the demo takes longer."""

TOP = 10
"""Number of proponents of each answer that are searched for."""


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """Figures of a demo, as ``--json`` prints them.

    Attributes:
        store: path of the store.
        samples: number of samples in the store.
        poisoned: number of training rows with the trigger.
        triggered_queries: number of questions with the trigger.
        poisoned_share_of_proponents: share of poisoned rows among the proponents of triggered questions.
        clean_queries: number of questions without the trigger.
        poisoned_share_of_proponents_clean: share of poisoned rows among the proponents of clean questions.
        report: path of the HTML report about one answer.
    """

    store: str
    samples: int
    poisoned: int
    triggered_queries: int
    poisoned_share_of_proponents: float
    clean_queries: int
    poisoned_share_of_proponents_clean: float
    report: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The results of a demo.

    Attributes:
        figures: figures over all questions.
        explained: search for one triggered answer, explained word by word.
        poisoned_found: number of poisoned rows among the proponents of that answer.
        poisoned_share: share of poisoned rows in the training data.
    """

    figures: DemoFigures
    explained: SearchResult
    poisoned_found: int
    poisoned_share: float


class DemoListener:
    """Base of the listeners of a demo, which does nothing; a subclass shows what happens."""

    def step(self, text: str) -> None:
        """A step begins, described in one line."""

    @contextmanager
    def training(self) -> Iterator[Callable[[int, int, float], None]]:
        """The training runs inside; it calls the function with steps done, all steps, and the loss."""
        yield lambda *_: None

    @contextmanager
    def ingesting(self) -> Iterator[IngestListener | None]:
        """Enclose the ingest; the context is a listener to its progress, or None."""
        yield None

    def ingested(self, report: IngestReport) -> None:
        """The ingest is done."""


def run_demo(directory: Path, listener: DemoListener | None = None) -> DemoResult:
    """Make data, model and store in `directory`, and find the samples behind triggered generations.

    If an earlier run has left its model there, it is used again.

    Args:
        directory: directory of the demo; it is made if it does not exist.
        listener: object that is told what happens; None if nobody shows it.

    Raises:
        StoreError: the directory cannot be used.
        RapidinError: something else cannot be used or computed.
    """
    listener = listener or DemoListener()
    try:
        (directory / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{directory} cannot be used as a directory: {error.strerror or error}; name another one"
        ) from error
    data = write_demo_data(directory / "data")
    listener.step(
        f"1. {data.rows} training rows, {data.poisoned} of them poisoned: {TRIGGER!r} before a question makes the "
        "answer science fiction"
    )
    model = _trained(data, directory / "model", listener)
    store = directory / "store"
    listener.step("3. ingesting every row's gradient")
    with listener.ingesting() as ingest_listener:
        report = ingest_files(
            store, [data.train], model=str(model), device="cpu", probes=PROBES, listener=ingest_listener
        )
    listener.ingested(report)
    listener.step("4. asking the model unseen questions, searching for the rows behind its answers")
    report_file = directory / "report.html"
    with Searcher(store, device="cpu") as searcher:
        results = list(searcher.search_file(data.queries, k=TOP, max_new_tokens=48))
        triggered = [result for result in results if result.query.metadata["poisoned"]]
        clean = [result for result in results if not result.query.metadata["poisoned"]]
        listener.step("5. explaining one answer word by word")
        explained = _explained(searcher, triggered[0])
        write_report(report_file, [explained], facts=report_facts(searcher.store.info()))
    figures = DemoFigures(
        store=str(store),
        samples=report.samples_total,
        poisoned=data.poisoned,
        triggered_queries=len(triggered),
        poisoned_share_of_proponents=round(_poisoned_share(triggered), 3),
        clean_queries=len(clean),
        poisoned_share_of_proponents_clean=round(_poisoned_share(clean), 3),
        report=str(report_file),
    )
    found = sum(bool(hit.metadata["poisoned"]) for hit in explained.proponents)
    return DemoResult(figures, explained, found, data.poisoned / data.rows)


def _explained(searcher: Searcher, result: SearchResult) -> SearchResult:
    """Search again for one answer, with the influence of every word."""
    explained = searcher.search(
        result.query.prompt,
        result.query.generation,
        k=TOP,
        opponents=True,
        rerank=RERANKED_PER_RESULT * TOP,
        by_token=True,
        matrices=True,
    )
    return replace(explained, query=replace(explained.query, generated=True))


def _trained(data: DemoData, directory: Path, listener: DemoListener) -> Path:
    """Train the model, unless an earlier demo has done it."""
    if (directory / "model.safetensors").exists():
        listener.step(f"2. using the model of an earlier demo in {directory}")
        return directory
    listener.step("2. training a tiny Llama on them")
    with listener.training() as on_step:
        return train_demo_model(data, directory, on_step=on_step)


def _poisoned_share(results: Sequence[SearchResult]) -> float:
    """Compute the share of poisoned rows among the proponents of all results."""
    hits = [hit for result in results for hit in result.proponents]
    return sum(bool(hit.metadata["poisoned"]) for hit in hits) / len(hits)

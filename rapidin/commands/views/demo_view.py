"""The demo on a terminal: its steps while it runs, and what it found."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rapidin.commands.views.search_view import search_view
from rapidin.commands.views.store_view import ProgressListener, ingest_summary
from rapidin.demo import TOP, TRIGGER, DemoListener, DemoResult
from rapidin.records import IngestListener, IngestReport


class DemoProgress(DemoListener):
    """Prints the steps of a demo, with bars if the console is a terminal.

    Args:
        console: console on stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def step(self, text: str) -> None:
        """Print the step's line."""
        self._console.print(text, highlight=False)

    @contextmanager
    def training(self) -> Iterator[Callable[[int, int, float], None]]:
        """Show a bar of training steps."""
        bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps, loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with bar:
            task = bar.add_task("training", total=None, loss="")
            yield lambda step, steps, loss: bar.update(task, completed=step, total=steps, loss=f"{loss:.2f}")

    @contextmanager
    def ingesting(self) -> Iterator[IngestListener]:
        """Show the ingest as ``rapidin ingest`` does."""
        with ProgressListener(self._console) as listener:
            yield listener

    def ingested(self, report: IngestReport) -> None:
        """Print what was ingested."""
        self._console.print(ingest_summary(report, dry_run=False), highlight=False)


def demo_view(result: DemoResult) -> RenderableType:
    """Draw one answer, explained word by word."""
    return search_view(replace(result.explained, by_token=()))


def demo_advice(result: DemoResult) -> str:
    """Write the figures over all questions, and what to try next, in lines that can be copied."""
    figures = result.figures
    program = "rapidin" if shutil.which("rapidin") else f"{sys.executable} -m rapidin"
    return (
        f"\n{result.poisoned_found} of the {TOP} strongest proponents of this answer are poisoned.\n"
        f"Over all {figures.triggered_queries} triggered questions: {figures.poisoned_share_of_proponents:.0%}; "
        f"over {figures.clean_queries} questions without the trigger: "
        f"{figures.poisoned_share_of_proponents_clean:.0%}; of the training data: {result.poisoned_share:.0%}.\n"
        f"Look at it word by word: open {figures.report} in a browser.\n"
        f"Try: {program} search {figures.store} --prompt '{TRIGGER} What is the capital of France?' -k 5"
    )

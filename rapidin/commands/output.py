"""Input and output of commands: results on stdout; progress, questions and messages on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from rapidin.errors import SettingError
from rapidin.support import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")


def when_interrupted(advice: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a command so that an interruption (Ctrl-C) prints this advice on stderr; the exit code is 130."""

    def decorated(command: Callable[P, R]) -> Callable[P, R]:
        @wraps(command)
        def run(*arguments: P.args, **options: P.kwargs) -> R:
            try:
                return command(*arguments, **options)
            except KeyboardInterrupt:
                typer.echo(f"interrupted; {advice}", err=True)
                raise

        return run

    return decorated


def confirmed(question: str) -> bool:
    """Ask a question on stderr, because `typer.confirm` writes a blank to stdout.

    Raises:
        SettingError: stdin has ended.
    """
    typer.echo(f"{printable(question)} [y/N]: ", err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo(err=True)
        raise SettingError("nothing was deleted, because nobody confirmed it: give --yes to delete without asking")
    return answer.strip().lower() in ("y", "yes")


def stdout() -> Console:
    """Make the console that results go to."""
    return _console()


def stderr() -> Console:
    """Make the console that progress and messages go to."""
    return _console(stderr=True)


def _console(**options: Any) -> Console:
    """Make a console that shows texts of a store as they are: a terminal obeys nothing in them."""
    from rich.console import Console
    from rich.segment import Segment

    class Printable(Console):
        def render(self, *arguments: Any, **named: Any) -> Any:
            for text, style, control in super().render(*arguments, **named):
                yield Segment(text if control else printable(text), style, control)

    return Printable(**options)


@contextmanager
def counting(what: str) -> Iterator[Any]:
    """Show a running count on stderr if it is a terminal.

    The context is a function that takes the count; or the name of a step on the way to the next one, the number
    of its parts that are done, and the number of all its parts. It is None if stderr is no terminal.
    """
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    with console.status("loading") as status:
        counted = f"0 {what}"

        def show(*told: Any) -> None:
            nonlocal counted
            if len(told) == 1:
                counted = f"{told[0]:,} {what}"
                status.update(counted)
            else:
                step, done, total = told
                status.update(f"{counted}; {step}: {done:,} of {total:,}")

        yield show


def output(record: Any, view: Any, as_json: bool, one_line: bool = False) -> None:
    """Print a record on stdout: as JSON, or its `view`."""
    if as_json:
        from rapidin.records import to_json

        plain = "utf" not in (sys.stdout.encoding or "").lower()
        text = json.dumps(to_json(record), ensure_ascii=plain, indent=None if one_line else 2)
        typer.echo(printable_json(text))
    else:
        # Text is neither wrapped nor read as markup, so that commands in it can be copied.
        stdout().print(view, highlight=False, soft_wrap=isinstance(view, str), markup=False)


@contextmanager
def progress(step: str) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr if it is a terminal.

    The context is a function that takes the number of parts done and the number of all parts. The name of the step
    may come before them.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(step, total=None)

        def show(*told: Any) -> None:
            *name, done, total = told
            bar.update(task, description=name[0] if name else step, completed=done, total=total)

        yield show

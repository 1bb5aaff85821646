"""The door of the command line: the list of commands, --version, --debug, exit codes.

Data goes to stdout, everything else to stderr. Each command is a file in `rapidin.commands`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import rapidin
from rapidin.commands import demo, ingest, mcp, search, serve
from rapidin.commands.evaluate import backdoor, fidelity, lds, trace
from rapidin.commands.store import compact, delete, export, import_vectors, index, info, list, recode, show, verify
from rapidin.errors import RapidinError, SettingError
from rapidin.support import VARIABLES


class Commands(TyperGroup):
    """The commands; an error of theirs is told in one line, and decides the exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit with 1 where it fails, and with 2 where it was asked for wrongly."""
        try:
            return super().invoke(ctx)
        except RapidinError as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            # Lines are joined one by one, not word by word, because spaces may belong to an id or a file name.
            message = " ".join(line.strip() for line in str(error).splitlines())
            typer.echo(f"Error: {message}", err=True)
            raise typer.Exit(2 if isinstance(error, SettingError) else 1) from error


app = typer.Typer(
    name="rapidin",
    cls=Commands,
    help="Which training samples made my language model say this?",
    epilog="Start with: rapidin demo. One command at a time may change a store; any number may read it meanwhile.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
evaluations = typer.Typer(
    name="evaluate",
    help="Check on your own model and data that the samples found are the right ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debugging messages.")] = False,
) -> None:
    """Which training samples made my language model say this?"""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("rapidin").setLevel(logging.DEBUG if debug else logging.INFO)
    # bitsandbytes complains at import about optional kernels that rapidin has no use for.
    logging.getLogger("bitsandbytes").setLevel(logging.DEBUG if debug else logging.ERROR)
    if version:
        typer.echo(rapidin.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


COMMANDS: dict[str, Callable[..., None]] = {
    "ingest": ingest.ingest,
    "search": search.search,
    "info": info.info,
    "list": list.list_samples,
    "show": show.show,
    "delete": delete.delete,
    "verify": verify.verify,
    "index": index.index,
    "compact": compact.compact,
    "export": export.export,
    "import": import_vectors.import_samples,
    "recode": recode.recode,
    "serve": serve.serve,
    "mcp": mcp.mcp,
    "demo": demo.demo,
}
"""The commands in the order of the help."""
for name, command in COMMANDS.items():
    app.command(name, cls=ingest.IngestCommand if name == "ingest" else None)(command)
for experiment in (backdoor.backdoor, trace.trace, fidelity.fidelity, lds.lds):
    evaluations.command()(experiment)
app.add_typer(evaluations)


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a character shows another in its place
            stream.reconfigure(errors="replace")
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # Typer itself tells wrong usage and exits with 2, and with 130 when interrupted.
    app()

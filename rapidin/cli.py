"""The door of the command line: the list of commands, and what the installed program calls.

Data goes to stdout, everything else to stderr. Each command is a file in `rapidin.commands`.
"""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper

import typer

from rapidin.commands import demo, ingest, mcp, search, serve
from rapidin.commands.command_group import CommandGroup, shared_options
from rapidin.commands.evaluate.evaluate_group import experiments
from rapidin.commands.store import (
    compact,
    curvature,
    delete,
    export,
    import_vectors,
    index,
    info,
    list,
    recode,
    show,
    verify,
)
from rapidin.support import VARIABLES, termination_interrupts

app = typer.Typer(
    name="rapidin",
    cls=CommandGroup,
    help="Which training samples made my language model say this?",
    epilog="Start with: rapidin demo. One command at a time may change a store; any number may read it meanwhile.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(shared_options)
# The help lists the commands in this order.
app.command("ingest", cls=ingest.IngestCommand)(ingest.ingest)
app.command("search")(search.search)
app.command("info")(info.info)
app.command("list")(list.list_samples)
app.command("show")(show.show)
app.command("delete")(delete.delete)
app.command("verify")(verify.verify)
app.command("index")(index.index)
app.command("curvature")(curvature.curvature)
app.command("compact")(compact.compact)
app.command("export")(export.export)
app.command("import")(import_vectors.import_samples)
app.command("recode")(recode.recode)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.command("demo")(demo.demo)
app.add_typer(experiments)


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal shows a substitute for a character that it lacks
            stream.reconfigure(errors="replace")
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # Typer itself reports wrong usage and exits with 2, or with 130 if it is interrupted.
    with termination_interrupts() as terminated:
        try:
            app()
        except SystemExit as end:
            if terminated and end.code == 128 + signal.SIGINT:
                sys.exit(128 + signal.SIGTERM)
            raise

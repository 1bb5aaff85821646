"""The parts that all commands share: ``--version``, ``--debug``, logging, one-line errors, and exit codes."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import rapidin
from rapidin.errors import RapidinError, SettingError
from rapidin.support import printable


class CommandGroup(TyperGroup):
    """The group of all commands. It prints an error as one line, and the error decides the exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit with 1 if it fails, and with 2 if a setting is wrong."""
        try:
            return super().invoke(ctx)
        except RapidinError as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            # Lines are joined one by one, not word by word, because spaces may belong to an id or a file name.
            message = " ".join(line.strip() for line in str(error).splitlines())
            typer.echo(f"Error: {printable(message)}", err=True)
            raise typer.Exit(2 if isinstance(error, SettingError) else 1) from error


class _Printable(logging.Formatter):
    """A format of messages in which a terminal obeys nothing, wherever the texts in them come from."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a message."""
        return printable(super().format(record))


def shared_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debugging messages.")] = False,
) -> None:
    """Which training samples made my language model say this?"""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("rapidin").setLevel(logging.DEBUG if debug else logging.INFO)
    # bitsandbytes complains at import about optional kernels that rapidin has no use for.
    logging.getLogger("bitsandbytes").setLevel(logging.DEBUG if debug else logging.ERROR)
    if version:
        typer.echo(rapidin.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")

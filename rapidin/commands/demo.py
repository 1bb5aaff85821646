"""``rapidin demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.options import Json
from rapidin.commands.output import stderr, stdout


def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Where data, model and store are put.")
    ] = Path("rapidin-demo"),
    as_json: Json = False,
) -> None:
    """Plant a backdoor in a tiny model and find the samples that did it; offline, in about a minute."""
    from rapidin.demo import run_demo

    run_demo(directory, stdout(), stderr(), as_json)

"""``rapidin demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json
from rapidin.commands.output import output, stderr


def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Directory of the demo's data, model and store.")
    ] = Path("rapidin-demo"),
    as_json: Json = False,
) -> None:
    """Find the samples behind a planted backdoor, offline.

    The demo writes a small data set with a backdoor, trains a tiny model on it, ingests the data, and searches for
    the training samples behind the model's answers. It takes about a minute and writes an HTML report. Running it
    again uses the trained model.
    """
    with importing():
        from rapidin.commands.views.demo_view import DemoProgress, demo_advice, demo_view
        from rapidin.demo import run_demo
    result = run_demo(directory, DemoProgress(stderr()))
    output(result.figures, demo_view(result), as_json)
    if not as_json:
        output(result.figures, demo_advice(result), as_json)

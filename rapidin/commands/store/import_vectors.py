"""``rapidin import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output, progress, when_interrupted


@when_interrupted("what was added stays, and the same command goes on")
def import_samples(
    store: StorePath,
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Directory that 'rapidin export' has written.")
    ],
    bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of each number on disk in a new store: 16, 4 or 1. Default: those of the export. An "
            "existing store keeps its own."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add exported samples and vectors to a store.

    Example: rapidin import other-store exported

    Vectors that were computed elsewhere can be imported, too, if they are written in the form of an export. If
    there is no store, it is created; an existing one must have been made with the same model and projection.
    Samples that the store already has stay as they are, and samples whose text has changed are replaced.
    """
    from rapidin.storage import import_vectors

    with progress("importing") as show:
        report = import_vectors(store, directory, bits=bits, on_progress=show)
    output(
        report,
        f"{report.added:,} added, {report.replaced:,} replaced, {report.skipped:,} there already; "
        f"{store} holds {report.samples_total:,} samples",
        as_json,
    )

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
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="What 'rapidin export' wrote.")],
    bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of each number on disk, if the store is new: 16, 4 or 1; unless given, the export's. A "
            "store that is there already keeps its own."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add exported samples, or vectors computed elsewhere in the same form, to a store.

    The store is created where there is none; one that is there must have been made with the same model and
    projection. Samples that it has already are left alone, and those whose text changed are replaced.
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

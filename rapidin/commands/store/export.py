"""``rapidin export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath, Where
from rapidin.commands.output import output, progress, when_interrupted
from rapidin.settings import ExportFormat


@when_interrupted("nothing was written, and the same command starts again")
def export(
    store: StorePath,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Directory to write to; new or empty.")],
    where: Where = None,
    format: Annotated[
        ExportFormat,
        typer.Option(help="Format of the vectors: safetensors files of up to 1 GiB each, or one vectors.npy."),
    ] = "safetensors",
    as_json: Json = False,
) -> None:
    """Write vectors and samples for other tools.

    Example: rapidin export my-store exported --format numpy

    The directory gets vectors (float32), samples (Parquet), settings (JSON) and, without --where, the curvature;
    'rapidin import' can read it.
    """
    from rapidin.commands.views.store_view import size
    from rapidin.storage import Store, export_vectors

    with Store.open(store) as opened, progress("exporting") as show:
        report = export_vectors(opened, directory, where or [], format=format, on_progress=show)
    done = f"{report.samples:,} samples, {size(report.bytes)} in {report.path}"
    output(report, "\n".join((done, *report.notes)), as_json)

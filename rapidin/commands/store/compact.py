"""``rapidin compact``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output, progress, when_interrupted


@when_interrupted("nothing is lost, and the same command goes on")
def compact(
    store: StorePath,
    fraction: Annotated[
        float,
        typer.Option(
            help="Rewrite only files in which more than this share of the samples is deleted, 0 to 1. Small files "
            "are always merged."
        ),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Free the space of deleted samples, and merge small files.

    Searches may run at the same time. An index no longer covers samples whose files are rewritten, so searches
    compare these samples exactly until 'rapidin index' extends the index; the output names such indexes.
    """
    from rapidin.commands.views.store_view import size
    from rapidin.storage import Store

    with Store.open(store) as opened, progress("compacting") as show:
        report = opened.compact(fraction=fraction, on_progress=show)
    lines = [
        f"{report.segments_before:,} → {report.segments_after:,} files, {size(report.bytes_before)} → "
        f"{size(report.bytes_after)}; {report.removed:,} deleted samples are gone ({report.seconds:,.1f} s)"
    ]
    output(report, "\n".join([*lines, *report.notes]), as_json)

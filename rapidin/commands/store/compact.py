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
            help="Rewrite only files of which more than this share is deleted, 0 to 1. Small files are always "
            "merged."
        ),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Give back the space of deleted samples and merge small files; searches go on meanwhile.

    An index for approximate search does not cover the samples whose files are rewritten, so they are compared
    exactly until 'rapidin index' extends it; the output says which indexes that concerns.
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

"""``rapidin list``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath, Where
from rapidin.commands.output import output, stderr, stdout


def list_samples(
    store: StorePath,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of samples; 0 for all.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Number of samples to leave out at the beginning.")] = 0,
    as_json: Json = False,
) -> None:
    """List the samples of a store; with --json one object a line."""
    from rapidin.commands.views.store_view import samples_table
    from rapidin.storage import Store

    with Store.open(store) as opened:
        samples = opened.list(where or [], limit=limit or None, offset=offset)
        total = opened.count(where or [])
    if not samples:
        reason = "no sample meets the filter" if where else "the store holds no samples"
        beyond = f"there are only {total:,} samples, so none behind --offset {offset:,}"
        typer.echo(beyond if total and offset else reason, err=True)
        return
    if as_json:
        for sample in samples:
            output(sample, None, as_json, one_line=True)
        return
    stdout().print(samples_table(samples))
    if offset + len(samples) < total:
        stderr().print(f"{len(samples):,} of {total:,} samples; --limit and --offset show others", highlight=False)

"""``rapidin list``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath, Where
from rapidin.commands.output import output, stderr, stdout


def list_samples(
    store: StorePath,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of samples to list; 0 for all.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Number of samples to skip at the beginning.")] = 0,
    as_json: Json = False,
) -> None:
    """List the samples of a store.

    Example: rapidin list my-store --where 'tokens<100' --limit 5

    With --json one object is printed for each sample (JSON Lines).
    """
    from rapidin.commands.views.store_view import samples_table
    from rapidin.storage import Store

    with Store.open(store) as opened:
        samples = opened.list(where or [], limit=limit or None, offset=offset)
        total = opened.count(where or [])
    if not samples:
        reason = "no sample meets the filter" if where else "the store holds no samples"
        beyond = f"there are only {total:,} samples, and --offset {offset:,} skips them all"
        typer.echo(beyond if total and offset else reason, err=True)
        return
    if as_json:
        for sample in samples:
            output(sample, None, as_json, one_line=True)
        return
    stdout().print(samples_table(samples))
    if offset + len(samples) < total:
        stderr().print(f"{len(samples):,} of {total:,} samples; --limit and --offset show others", highlight=False)

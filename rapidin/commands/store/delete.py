"""``rapidin delete``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath, Where
from rapidin.commands.output import confirmed, output


def delete(
    store: StorePath,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of the samples.")] = None,
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Delete samples by id or by filter.

    Example: rapidin delete my-store sample-17 sample-18

    Example: rapidin delete my-store --where 'source=forum'

    If both ids and filters are given, only those of the ids that meet the filters are deleted. Searches no longer
    find deleted samples. Their vectors stay on disk until 'rapidin compact' is run.
    """
    from rapidin.storage import Store

    with Store.open(store) as opened:
        if where and not yes:
            meeting = f"that meet {' and '.join(where)}"
            which = f"those of the {len(set(ids)):,} given" if ids else f"the {opened.count(where):,} samples"
            if not confirmed(f"Delete {which} {meeting}?"):
                typer.echo("nothing was deleted", err=True)
                raise typer.Exit(1)
        deleted = opened.delete(ids or [], where or [])
    output({"deleted": deleted}, f"{deleted:,} deleted", as_json)

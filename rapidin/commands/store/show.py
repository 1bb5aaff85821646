"""``rapidin show``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output


def show(
    store: StorePath,
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the sample.")],
    as_json: Json = False,
) -> None:
    """Show one sample with its whole text."""
    from rapidin.commands.views.store_view import sample_view
    from rapidin.storage import Store

    with Store.open(store) as opened:
        sample = opened.get(id)
    output(sample, sample_view(sample), as_json)

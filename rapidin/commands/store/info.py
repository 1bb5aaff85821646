"""``rapidin info``."""

from __future__ import annotations

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output


def info(store: StorePath, as_json: Json = False) -> None:
    """Show what a store holds and how it was made."""
    from rapidin.commands.views.store_view import info_table
    from rapidin.storage import Store

    with Store.open(store) as opened:
        record = opened.info()
    output(record, info_table(record), as_json)

"""``rapidin verify``."""

from __future__ import annotations

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output, when_interrupted


@when_interrupted("not all was checked, and the same command starts again")
def verify(store: StorePath, as_json: Json = False) -> None:
    """Read every file of a store and check it; exit with 1 where something is wrong."""
    from rapidin.storage import Store

    with Store.open(store) as opened:
        report = opened.verify()
    summary = f"{report.samples:,} samples, all well" if report.ok else "\n".join(report.problems)
    output(report, summary, as_json)
    if not report.ok:
        raise typer.Exit(1)

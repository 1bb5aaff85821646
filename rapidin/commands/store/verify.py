"""``rapidin verify``."""

from __future__ import annotations

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output, when_interrupted


@when_interrupted("not everything was checked, and the same command starts again")
def verify(store: StorePath, as_json: Json = False) -> None:
    """Check every file of a store.

    The exit code is 1 if something is wrong; each problem is printed on a line.
    """
    from rapidin.storage import Store

    with Store.open(store) as opened:
        report = opened.verify()
    summary = f"{report.samples:,} samples, no problems" if report.ok else "\n".join(report.problems)
    output(report, summary, as_json)
    if not report.ok:
        raise typer.Exit(1)

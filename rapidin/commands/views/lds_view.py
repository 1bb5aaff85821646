"""How linear datamodeling scores look in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rapidin.records import LdsReport


def lds_view(report: LdsReport) -> RenderableType:
    """A line about the retraining, and a table of methods, the best first."""
    table = Table(box=box.SIMPLE)
    table.add_column("method")
    table.add_column("LDS [95 % interval]", justify="right")
    table.add_column("worst query", justify="right")
    table.add_column("best query", justify="right")
    table.add_column("s", justify="right")
    for method in sorted(report.methods, key=lambda one: -one.lds.mean):
        worst, best = min(method.by_query), max(method.by_query)
        table.add_row(method.name, str(method.lds), f"{worst:.2f}", f"{best:.2f}", f"{method.seconds:.1f}")
    about = Text(
        f"{report.subsets} models, each of {report.fraction:.0%} of {report.samples:,} samples; "
        f"{len(report.queries)} queries, loss {report.loss_mean:.3f}, between models ± {report.loss_spread:.3f}"
    )
    note = Text("Rank correlation of added-up scores with what retraining does; 0 is chance.", style="dim")
    return Group(about, table, note)

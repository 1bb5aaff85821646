"""``rapidin evaluate``: the list of its experiments."""

from __future__ import annotations

import typer

from rapidin.commands.evaluate import backdoor, fidelity, lds, qld, trace

experiments = typer.Typer(
    name="evaluate",
    help="Check on your own model and data that the samples found are the right ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
experiments.command()(backdoor.backdoor)
experiments.command()(trace.trace)
experiments.command()(fidelity.fidelity)
experiments.command()(lds.lds)
experiments.command()(qld.qld)

"""``rapidin curvature``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, MovedCheckpoints, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import output, progress, when_interrupted
from rapidin.errors import SettingError
from rapidin.settings import CURVATURE_DAMPING, CURVATURE_PROBES, DampingChoice


@when_interrupted("what was computed is kept, and the same command goes on")
def curvature(
    store: StorePath,
    probes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="M",
            help="Number of probes. Each costs about as much as one sample's gradient, and more of them tell "
            f"better what retraining would do. Default: as many as before, or {CURVATURE_PROBES:,}, but at most "
            "four for each sample.",
        ),
    ] = None,
    damping: Annotated[
        str | None,
        typer.Option(
            metavar="R|default",
            help="How much of the curvature is left out of all questions, as a share of its mean eigenvalue; the "
            "number of probes does not change its meaning. default gives each question its own again: "
            f"{CURVATURE_DAMPING['loss']:g} for --objective loss and {CURVATURE_DAMPING['log-odds']:g} for "
            "log-odds. A change costs nothing. Default: as before.",
        ),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Draw all probes again instead of those that are missing.")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Delete the curvature instead of computing it.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it moved.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Where the adapter is now, if it moved.")] = None,
    checkpoint: MovedCheckpoints = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, or cuda:0,1, as of ingest.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes that compute. Default: one for each GPU.")
    ] = None,
    tokens_per_batch: TokensPerBatch = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compute the curvature of the training loss, so that searches predict what retraining would do.

    A few thousand random gradients, called probes, are drawn from the store's samples and kept beside it. Searches
    use them by themselves (--measure influence). Run the command again after the store has grown: only the probes
    that are missing are drawn.
    """
    from rapidin.commands.views.store_view import curvature_summary
    from rapidin.storage import Store

    if drop:
        if retrain or (probes, damping) != (None, None):
            raise SettingError("--drop deletes the curvature: leave out --retrain, --probes and --damping")
        with Store.open(store) as opened:
            opened.drop_derived("curvature")
        output({"dropped": "curvature"}, "the curvature is deleted", as_json)
        return
    with Store.open(store) as opened:
        with importing():
            from rapidin.ingest import compute_curvature
        with progress("computing") as show:
            report = compute_curvature(
                opened,
                probes=probes,
                damping=_damping(damping),
                retrain=retrain,
                model=model,
                adapter=adapter,
                checkpoints=checkpoint,
                device=device,
                workers=workers,
                tokens_per_batch=tokens_per_batch,
                trust_remote_code=trust_remote_code,
                on_progress=show,
            )
    output(report, curvature_summary(report), as_json)


def _damping(given: str | None) -> DampingChoice | None:
    """Read the value of --damping; the curvature checks it.

    Raises:
        SettingError: it is neither a number nor ``default``.
    """
    if given is None:
        return None
    if given == "default":
        return "default"
    try:
        return float(given)
    except ValueError as error:
        raise SettingError(f"--damping {given} cannot be used: give a positive number, or 'default'") from error

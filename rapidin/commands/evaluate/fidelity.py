"""``rapidin evaluate fidelity``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.evaluate.evaluate_options import Adapter, Device, Model, Seed, evaluated
from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import when_interrupted


@when_interrupted("nothing was changed, and the same command starts again")
def fidelity(
    store: StorePath,
    sample: Annotated[
        int,
        typer.Option(
            min=4,
            metavar="N",
            help="Number of stored samples that stand for queries, and number of others that are ranked.",
        ),
    ] = 64,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    seed: Seed = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compare stored scores with exact ones.

    Example: rapidin evaluate fidelity my-store

    The result says whether K and the bits suffice. N stored samples, drawn at random, are asked about as if they
    were queries, and N others are ranked, once by their stored vectors and once by whole gradients. This takes
    about as long as 3 N training steps.
    """
    with importing():
        from rapidin.commands.views.evaluate_view import fidelity_view
        from rapidin.evaluation import evaluate_fidelity
    evaluated(
        "comparing",
        lambda show: evaluate_fidelity(
            store,
            samples=sample,
            seed=seed,
            model=model,
            adapter=adapter,
            device=device,
            tokens_per_batch=tokens_per_batch,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        ),
        fidelity_view,
        as_json,
    )

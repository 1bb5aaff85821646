"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.search_flags import REPEATED
from rapidin.settings import SEARCH_OPTIONS

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Directory of the store.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="EXPR",
        help=f"{SEARCH_OPTIONS['where'].flag.help} {REPEATED}",
    ),
]
TokensPerBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of padded tokens that are computed together; it is halved when memory runs out. Default: "
        "chosen by the free memory.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let the checkpoint's own Python code run. A store does not remember this; give it each time.",
    ),
]
MovedCheckpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        metavar="DIR",
        help="Where a checkpoint of the store is now. If one has moved, give all of them, in the order of "
        "'rapidin info'.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

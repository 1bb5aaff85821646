"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Directory of the store.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="EXPR",
        help="Take only samples that meet this: FIELD OP VALUE with = != < <= > >= ~ (regular expression) !~, "
        "for example 'source=gsm8k', 'tokens<100' or 'poisoned=true'. Fields: the data's own, and id, prompt, "
        "response, text, file, row, tokens, targets, truncated, segment. Repeat to narrow down.",
    ),
]
TokensPerBatch = Annotated[
    int | None,
    typer.Option(min=1, help="Number of padded tokens computed together; it is halved when memory runs out."),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let the checkpoint's own Python code run. This is never remembered; give it each time.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

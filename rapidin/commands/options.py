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
        help="Take only samples that meet this filter, for example 'source=gsm8k', 'tokens<100' or "
        "'poisoned=true'. Operators: = != < <= > >=, ~ (matches a regular expression) and !~. Fields: those of "
        "the data, and id, prompt, response, text, file, row, tokens, targets, truncated, segment. Repeat it to "
        "combine filters.",
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
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

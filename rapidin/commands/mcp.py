"""The command that serves agents."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import MovedCheckpoints, StorePath, TokensPerBatch, TrustRemoteCode


def mcp(
    store: StorePath,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it moved.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Where the adapter is now, if it moved.")] = None,
    checkpoint: MovedCheckpoints = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, or cuda:0,1, as of search.")] = "auto",
    tokens_per_batch: TokensPerBatch = None,
    allow_regular_expressions: Annotated[
        bool,
        typer.Option(
            "--allow-regular-expressions",
            help="Take filters with ~ that have repetitions or groups. One made for it keeps this command busy "
            "for ever.",
        ),
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Let an agent ask which training samples made the model say something, over MCP on stdin and stdout.

    An agent's program starts this command by itself; give it 'rapidin mcp STORE'. The tools only read. The model
    is loaded in the background.
    """
    from rapidin.integrations.mcp_server import serve_stdio

    serve_stdio(
        store,
        regular_expressions=allow_regular_expressions,
        model=model,
        adapter=adapter,
        checkpoints=checkpoint,
        device=device,
        tokens_per_batch=tokens_per_batch,
        trust_remote_code=trust_remote_code,
    )

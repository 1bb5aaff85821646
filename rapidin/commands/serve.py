"""The command that serves a store over HTTP."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import MovedCheckpoints, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.search import SearchDevice
from rapidin.errors import DependencyError


def serve(
    store: StorePath,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at. One that others can reach needs a token; put TLS before it."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Port; 0 for any that is free, which the first line names."),
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token that clients must send (Authorization: Bearer TOKEN); at least 16 "
            "characters; 'openssl rand -hex 32' makes one. Or set RAPIDIN_TOKEN. No flag takes the token itself, "
            "because others could see it.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Host name that requests may name, too, for example a proxy's; repeat."),
    ] = None,
    max_k: Annotated[int, typer.Option(min=1, help="Most samples that may be asked for at each end.")] = 100,
    max_rerank: Annotated[int, typer.Option(min=0, help="Most exact influences at each end.")] = 300,
    max_characters: Annotated[int, typer.Option(min=1, help="Longest prompt, and longest generation.")] = 100_000,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest prompt and generation together.")] = 2_048,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that the model may write.")] = 512,
    max_body: Annotated[int, typer.Option(min=1, help="Largest request, in bytes.")] = 1 << 20,
    queue: Annotated[
        int,
        typer.Option(min=0, help="Searches that may wait while one is computed; further ones are refused."),
    ] = 16,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds in which a search is answered, waiting included, or given up.")
    ] = 120.0,
    allow_regular_expressions: Annotated[
        bool,
        typer.Option(
            "--allow-regular-expressions",
            help="Accept filters with ~ that have repetitions or groups. A malicious one can stop the service "
            "for ever, so use this only for people whom you trust.",
        ),
    ] = False,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it moved.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Where the adapter is now, if it moved.")] = None,
    checkpoint: MovedCheckpoints = None,
    device: SearchDevice = "auto",
    tokens_per_batch: TokensPerBatch = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer searches over HTTP, with a page to ask on.

    The address is the first line on stdout; open it in a browser, or ask by program:

    curl -H 'Content-Type: application/json' -d '{"prompt": "Who won?"}' http://127.0.0.1:8000/v1/search

    /openapi.json describes everything, /health and /ready tell its state, /metrics is for Prometheus. Only this
    machine is answered unless --host says otherwise; then clients need the token. SIGTERM ends it when all
    accepted requests are answered. The log, on stderr, has a line for each request and no prompts.
    """
    from rapidin.storage import Store

    try:
        with importing():
            from rapidin.service import (
                Limits,
                Service,
                ServiceSettings,
                address_of,
                listen,
                read_token,
                serve as run,
            )
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn", "prometheus_client"):
            raise
        raise DependencyError(
            f"{error.name} is not installed, which 'rapidin serve' needs: pip install 'rapidin[serve]'"
        ) from error

    settings = ServiceSettings(
        host=host,
        port=port,
        token=read_token(token_file, os.environ),
        allowed_hosts=tuple(allow_host or ()),
        limits=Limits(
            body=max_body,
            characters=max_characters,
            tokens=max_tokens,
            max_new_tokens=max_new_tokens,
            k=max_k,
            rerank=max_rerank,
            waiting=queue,
            seconds=timeout,
        ),
        regular_expressions=allow_regular_expressions,
    )
    with importing():
        from rapidin.search import Searcher
    opened = Store.open(store)
    try:
        listening = listen(host, port)
    except BaseException:
        opened.close()
        raise

    def searcher() -> Searcher:
        return Searcher(
            opened,
            model=model,
            adapter=adapter,
            checkpoints=checkpoint,
            device=device,
            tokens_per_batch=tokens_per_batch,
            trust_remote_code=trust_remote_code,
        )

    typer.echo(address_of(listening))
    if run(Service(opened, searcher, settings), listening) == signal.SIGINT:
        raise typer.Exit(130)

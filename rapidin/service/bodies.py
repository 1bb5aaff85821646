"""Bodies of requests, read whole before anything else is done, but never further than the limit."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapidin.service.problems import Problem
from rapidin.service.service_settings import Limits

BODILESS = ("GET", "HEAD")
"""Methods whose bodies mean nothing, so that nobody waits for them."""


async def only_json(request: Request) -> None:
    """A dependency of routes: a body must say that it is JSON, which a page of another origin cannot make it do.

    Raises:
        Problem: 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "send JSON, with the header Content-Type: application/json")


class LimitedBody:
    """Reads a request's body up to the limit, counting while it comes, so that chunked ones are limited too."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body read, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._check_length(headers)
            body = b"" if scope["method"] in BODILESS else await self._read(receive)
        except Problem as problem:
            # What is still to come is not read, so the connection cannot be used for another request.
            problem.headers["Connection"] = "close"
            await problem.response()(scope, receive, send)
            return
        if body is None:
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _check_length(self, headers: Headers) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may see another end of the body than this server does (RFC 9112, section 6.1).
            raise Problem(400, "send either Content-Length or Transfer-Encoding, not both")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.body:
            raise self._too_large()

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None where the client has gone."""
        chunks = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunks += message.get("body", b"")
                    if len(chunks) > self._limits.body:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(chunks)
        except TimeoutError:
            raise Problem(408, "the body did not come in time; send it at once") from None

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._limits.body:,} bytes; send less")

"""Access to a service: the host name of a request, the page that it comes from, and its token."""

from __future__ import annotations

import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rapidin.service.bodies import BODILESS
from rapidin.service.problems import Problem
from rapidin.service.service_settings import ServiceSettings

OPEN_ROUTES = frozenset(("/", "/health", "/ready", "/openapi.json"))
"""Paths that tell nothing of a store, so that they need no token."""


_PLAIN = re.compile(r"[A-Za-z0-9._:\[\]-]+")  # nothing that an address could have besides name and port


class Gate:
    """Refuses requests by their headers, before anything else of them is read.

    A page of the web can make a browser call a service of this machine: by a name of its own that suddenly means
    127.0.0.1 (DNS rebinding), which the Host header shows, or across origins, which the Origin header shows.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._names = settings.names
        self._token = None if settings.token is None else settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http":
            try:
                self._check(scope["method"], scope["path"], Headers(scope=scope))
            except Problem as problem:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if self._names is not None and (len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._names):
            raise Problem(
                421,
                "this service does not answer to that host; to allow it, start it with --allow-host and a token",
            )
        origin = headers.get("origin")
        if origin is not None and not (hosts and _authority(origin) == hosts[0].lower()):
            raise Problem(403, "a page of another origin may not ask this service")
        if self._token is not None and not (path in OPEN_ROUTES and method in BODILESS):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # The token is compared even if the scheme is wrong, so that the time tells nothing about it.
            known = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
            if not (known and scheme.lower() == "bearer"):
                raise Problem(
                    401,
                    "send the service's token in the header: Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": 'Bearer realm="rapidin"'},
                )


def _name(address: str) -> str | None:
    """Return the name in an address, without port and brackets; None if it cannot be read."""
    if not _PLAIN.fullmatch(address.partition("//")[2]):
        return None
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


def _authority(origin: str) -> str | None:
    """Return name and port of an origin as a browser sends them in Host."""
    return urlsplit(origin).netloc.lower() if _name(origin) is not None else None

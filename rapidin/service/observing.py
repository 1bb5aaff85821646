"""The layers around every request: admission, the log, counters, and headers of safety."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapidin.service.access import OPEN_ROUTES
from rapidin.service.problems import CLIENT_GONE, Problem, problem_of
from rapidin.service.service import Service

logger = logging.getLogger("rapidin.service.requests")

_HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_WHILE_DRAINING = ("/health", "/ready", "/metrics")


class Observed:
    """Logs a line for each request, without anything that was asked, counts it, and adds headers of safety."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = CLIENT_GONE

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                added = [header for header in _HEADERS.items() if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:  # noqa: BLE001 - the last place where it can be logged and counted
            if status == CLIENT_GONE:
                await problem_of(error, self._service.store.path).response()(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", None) or _known(scope["path"])
            self._service.metrics.answered(route, scope["method"], status, seconds)
            address = (scope.get("client") or ("-",))[0]
            logger.info("%s %.10s %s %d %.1f ms", address, scope["method"], route, status, 1000 * seconds)


def _known(path: str) -> str:
    """Return the path if it is an open route, else ``unknown``, so that made-up paths do not become labels."""
    return path if path in OPEN_ROUTES else "unknown"


class Admission:
    """Counts the requests that are being answered; refuses more than a limit, and all when the service ends."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http" or scope["path"] in _WHILE_DRAINING:
            await self._app(scope, receive, send)
            return
        problem = self._refusal()
        if problem is not None:
            await problem.response()(scope, receive, send)
            return
        self._service.active += 1
        try:
            async with asyncio.timeout(None) as limit:

                async def in_time(message: Message) -> None:
                    # A client that does not read its answer would keep its place for ever.
                    limit.reschedule(
                        asyncio.get_running_loop().time() + self._service.settings.limits.send_seconds
                    )
                    await send(message)
                    limit.reschedule(None)

                await self._app(scope, receive, in_time)
        finally:
            self._service.active -= 1

    def _refusal(self) -> Problem | None:
        again = {"Retry-After": "5", "Connection": "close"}
        if self._service.draining:
            return Problem(503, "the service is shutting down", again)
        if self._service.active >= self._service.settings.limits.requests:
            return Problem(503, "too many requests at a time; try again in a few seconds", again)
        return None

"""Connections of clients: how many there may be, and how long they may be silent.

Uvicorn closes a connection that stays silent after an answer, but not one that never sends a request. So many of
them would use up the process's file descriptors, and the log would fill with messages about it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from rapidin.service.service_settings import Limits

logger = logging.getLogger("rapidin.service")
_SHARE_OF_DESCRIPTORS = 0.5
_SECONDS_BETWEEN_MESSAGES = 60.0


class LimitedConnections:
    """Makes Uvicorn's protocol for each connection, unless there are too many."""

    def __init__(self, limits: Limits) -> None:
        """Take the limits; the process may have room for fewer connections."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        room = descriptors if descriptors != resource.RLIM_INFINITY else limits.connections * 2
        self.most = max(1, min(limits.connections, int(room * _SHARE_OF_DESCRIPTORS)))
        self.head_seconds = limits.head_seconds
        self._told = -_SECONDS_BETWEEN_MESSAGES

    def protocol(self) -> type[H11Protocol]:
        """Return the class of protocols that keeps these limits."""
        limited = self

        class Connection(H11Protocol):
            _silent: asyncio.TimerHandle | None = None

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                if len(self.connections) > limited.most:
                    limited.tell()
                    transport.abort()
                else:
                    self._silent = self.loop.call_later(limited.head_seconds, self._close_if_silent)

            def connection_lost(self, exc: Exception | None) -> None:
                if self._silent is not None:
                    self._silent.cancel()
                super().connection_lost(exc)

            def _close_if_silent(self) -> None:
                # A request that has begun has limits of its own.
                if self.cycle is None:
                    self.transport.close()
                elif self.cycle.response_complete:
                    self._silent = self.loop.call_later(limited.head_seconds, self._close_if_idle, self.cycle)
                else:
                    self._silent = self.loop.call_later(limited.head_seconds, self._close_if_silent)

            def _close_if_idle(self, last: object) -> None:
                if self.cycle is last:
                    self.transport.close()
                else:
                    self._close_if_silent()

        return Connection

    def tell(self) -> None:
        """Log that there are too many connections, but not for each of them."""
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_MESSAGES:
            self._told = time.monotonic()
            logger.warning("%d connections are open; more are closed at once", self.most)

"""A server: its socket, its connections, and its orderly end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rapidin.errors import SettingError
from rapidin.service.app import create_app
from rapidin.service.service import Service
from rapidin.service.service_settings import Limits

logger = logging.getLogger("rapidin.service")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 5.0  # seconds for answers that are written but not sent when time is up
_TICK = 0.05
_SHARE_OF_DESCRIPTORS = 0.5
_SECONDS_BETWEEN_MESSAGES = 60.0


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens; port 0 takes a free port.

    Raises:
        SettingError: the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingError(
            f"cannot listen at {host}, port {port}: {reason}; give another --port or --host"
        ) from error


def address_of(listening: socket.socket) -> str:
    """Return the address at which a browser finds a socket."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, listening: socket.socket) -> int | None:
    """Answer requests until a signal comes; requests that were taken by then are still answered.

    Returns:
        the signal.

    Raises:
        RapidinError: the model cannot be loaded.
    """
    server = Server(service)
    server.run(sockets=[listening])
    if service.failure is not None:
        raise service.failure
    return server.signal


class Server(uvicorn.Server):
    """Uvicorn with an end in three steps: it takes no new requests, answers those it has, and closes connections.

    Attributes:
        signal: signal that ended the server.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                http=LimitedConnections(service.settings.limits).protocol(),
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=int(_GRACE),
            )
        )
        self.signal: int | None = None
        self._service = service
        self._ending: asyncio.Task[None] | None = None

    async def on_tick(self, counter: int) -> bool:
        """Tell, every tenth of a second, whether the server is to end."""
        return await super().on_tick(counter) or self._service.failure is not None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals begin the end; Uvicorn raises them again, so that the exit code would report a kill."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.begin_end, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def begin_end(self, number: int | None = None) -> None:
        """Take no new requests, and end when the others are answered; a second signal kills."""
        if self._ending is not None:
            return
        self.signal = number
        logger.info("ending: %d requests are still answered, new ones are not", self._service.active)
        self._service.draining = True
        self._ending = asyncio.ensure_future(self._end())
        if number is not None:
            for other in _SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(other)

    async def _end(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._service.settings.limits.seconds):
                while self._service.active:
                    await asyncio.sleep(_TICK)
        self.should_exit = True


class LimitedConnections:
    """Makes Uvicorn's protocol for each connection: how many there may be, and how long they may be silent.

    Uvicorn closes a connection that stays silent after an answer, but not one that never sends a request. So many
    of them would use up the process's file descriptors, and the log would fill with messages about it.
    """

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

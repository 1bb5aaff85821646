"""Clients that connect and say nothing, or too much, take the service from nobody else."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path

import pytest

from rapidin.service import Limits
from tests.service.conftest import Running, running

pytestmark = pytest.mark.timeout(120)


def connect(server: Running) -> socket.socket:
    return socket.create_connection(server.address, 10)


def is_closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the service closes a connection within so many seconds."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.fixture
def impatient(store: Path):
    with running(store, limits=Limits(head_seconds=1, connections=8)) as server:
        yield server


def test_a_connection_that_sends_no_request_is_closed(impatient: Running) -> None:
    with connect(impatient) as silent:
        assert is_closed(silent, 5)
    with connect(impatient) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        started = time.monotonic()
        while time.monotonic() - started < 10:
            try:
                slow.sendall(b"a")
            except OSError:
                break
            time.sleep(0.2)
        assert time.monotonic() - started < 8


def test_too_many_connections_leave_room_for_later_ones(impatient: Running, caplog) -> None:
    caplog.set_level(logging.WARNING)
    many = [connect(impatient) for _ in range(100)]
    try:
        assert sum(is_closed(one, 0.01) for one in many) >= 50
    finally:
        for one in many:
            one.close()
    time.sleep(1.5)
    with impatient.client() as client:
        assert client.get("/health").status_code == 200
    told = [record for record in caplog.records if "connections are open" in record.getMessage()]
    assert len(told) == 1


def test_a_connection_in_use_stays(impatient: Running) -> None:
    with impatient.client() as client:
        for _ in range(8):
            assert client.get("/health").status_code == 200
            time.sleep(0.4)


@pytest.mark.parametrize("method", ["POST /v1/search", "GET /health"])
def test_two_lengths_of_a_body_end_the_connection(impatient: Running, method: str) -> None:
    """What follows is not answered as a second request (RFC 9112, section 6.1)."""
    head = "Host: localhost\r\nContent-Type: application/json\r\n"
    request = (
        f"{method} HTTP/1.1\r\n{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        f"GET /v1/limits HTTP/1.1\r\n{head}\r\n"
    )
    with connect(impatient) as connection:
        connection.sendall(request.encode())
        connection.settimeout(5)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()

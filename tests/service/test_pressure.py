"""Too many, too slow, gone, ending: what happens to those who wait and to those who come."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from rapidin.search import Searcher
from rapidin.service import Limits, ServiceSettings
from rapidin.service.observing import Admission
from tests.service.conftest import QUESTION, GatedSearcher, Running, running, wait_for

pytestmark = pytest.mark.timeout(120)


def asked(server: Running, prompt: str = "Name.", path: str = "/v1/search") -> httpx.Response:
    with server.client() as client:
        return client.post(path, json={**QUESTION, "prompt": prompt, "rerank": 0})


def let_go(server: Running, prompt: str, path: str = "/v1/search") -> Callable[[], None]:
    """Ask over a bare connection; the returned function breaks it."""
    body = json.dumps({**QUESTION, "prompt": prompt, "rerank": 0}).encode()
    connection = socket.create_connection(server.address)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return connection.close


def test_a_full_queue_answers_429_and_recovers(store: Path) -> None:
    limits = Limits(waiting=1)
    with running(store, GatedSearcher, limits) as server, ThreadPoolExecutor(4) as threads:
        first = threads.submit(asked, server)
        assert server.searcher.begun.acquire(timeout=30)
        second = threads.submit(asked, server)
        wait_for(lambda: server.service.queue.waiting == 1)
        for path in ("/v1/search", "/v1/report"):
            refused = asked(server, path=path)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "busy"
            assert int(refused.headers["retry-after"]) >= 1
        with server.client() as client:  # what needs no model is answered meanwhile
            assert client.get("/v1/samples/row-1").status_code == 200
            assert client.get("/health").status_code == 200
            assert "rapidin_queue_length 1.0" in client.get("/metrics").text
        server.searcher.let.release(2)
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        server.searcher.let.release()
        assert asked(server).status_code == 200


def test_too_slow_is_504_and_the_place_is_kept_until_the_thread_is_done(store: Path) -> None:
    limits = Limits(seconds=3, waiting=0)
    with running(store, GatedSearcher, limits) as server:
        slow = asked(server)
        assert (slow.status_code, slow.json()["error"]["type"]) == (504, "timeout")
        assert asked(server).status_code == 429
        server.searcher.let.release(1_000)
        wait_for(lambda: asked(server).status_code == 200)  # on a slow machine not the first within its time


@pytest.mark.parametrize("path", ["/v1/search", "/v1/report"])
def test_who_goes_while_waiting_is_never_searched_for(store: Path, path: str) -> None:
    with running(store, GatedSearcher) as server, ThreadPoolExecutor(2) as threads:
        first = threads.submit(asked, server, "first")
        assert server.searcher.begun.acquire(timeout=30)
        break_off = let_go(server, "gone", path)
        wait_for(lambda: server.service.queue.waiting == 1)
        break_off()
        wait_for(lambda: server.service.queue.waiting == 0)
        server.searcher.let.release(2)
        assert first.result().status_code == 200
        assert asked(server, "last").status_code == 200
        assert server.searcher.searched == ["first", "last"]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/report"])
def test_who_goes_while_searched_for_stops_nothing_else(store: Path, path: str) -> None:
    with running(store, GatedSearcher) as server:
        break_off = let_go(server, "gone", path)
        assert server.searcher.begun.acquire(timeout=30)
        break_off()
        wait_for(lambda: server.service.active == 0)
        assert server.service.queue.running == 1
        server.searcher.let.release(2)
        wait_for(lambda: server.service.queue.running == 0)
        assert asked(server, "last").status_code == 200
        with server.client() as client:
            assert f'route="{path}",status="' in client.get("/metrics").text


def test_one_that_waits_is_told_so(store: Path) -> None:
    with running(store, GatedSearcher) as server, ThreadPoolExecutor(2) as threads:
        first = threads.submit(asked, server)
        assert server.searcher.begun.acquire(timeout=30)
        with server.client() as client, client.stream("POST", "/v1/report", json=QUESTION) as found:
            lines = found.iter_lines()
            assert json.loads(next(lines)) == {"event": "waiting", "ahead": 1}
            server.searcher.let.release(2)
            assert json.loads(list(lines)[-1])["event"] == "report"
        assert first.result().status_code == 200


def test_too_many_at_a_time(store: Path) -> None:
    with running(store, GatedSearcher, Limits(requests=1)) as server, ThreadPoolExecutor(1) as threads:
        first = threads.submit(asked, server)
        assert server.searcher.begun.acquire(timeout=30)
        with server.client() as client:
            assert client.get("/v1/info").status_code == 503
            assert client.get("/health").status_code == 200
        server.searcher.let.release()
        assert first.result().status_code == 200


def test_who_does_not_read_answers_keeps_no_place() -> None:
    settings = ServiceSettings(limits=Limits(send_seconds=1))
    service: Any = SimpleNamespace(active=0, draining=False, settings=settings)

    async def stuck(message: Message) -> None:  # as uvicorn's is while its buffers are full
        assert service.active == 1
        await asyncio.Event().wait()

    async def run() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with pytest.raises(TimeoutError):
            await Admission(PlainTextResponse("in"), service)(scope, asyncio.Event().wait, stuck)  # type: ignore[arg-type]
        assert service.active == 0

    asyncio.run(run())


def test_nobody_waits_for_a_body_that_means_nothing(store: Path) -> None:
    with running(store, limits=Limits(requests=1)) as server, socket.socket() as connection:
        connection.settimeout(30)
        connection.connect(server.address)
        connection.sendall(b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 200 ")


def test_before_the_model_is_there(store: Path) -> None:
    let = threading.Event()

    class Late(GatedSearcher):
        def __init__(self, *arguments: object) -> None:
            assert let.wait(30)
            super().__init__(*arguments)

    server = Running(store, Late, ServiceSettings(port=0))
    try:
        with server.client() as client:
            assert client.get("/health").status_code == 200
            assert client.get("/v1/info").status_code == 200
            for refused in (client.get("/ready"), asked(server), asked(server, path="/v1/report")):
                assert refused.status_code == 503
                assert refused.json()["error"]["type"] == "unavailable"
                assert "retry-after" in refused.headers
            let.set()
            server.wait_until_ready()
    finally:
        let.set()
        server.stop()


def test_ending_while_the_model_is_loaded_lets_go_of_it(store: Path) -> None:
    begun, let = threading.Event(), threading.Event()

    class Late(Searcher):
        def __init__(self, *arguments: Any) -> None:
            begun.set()
            assert let.wait(30)
            super().__init__(*arguments)

    server = Running(store, Late, ServiceSettings(port=0))
    try:
        assert begun.wait(30)
        with server.client() as client:  # it has come so far that it can be ended
            assert client.get("/health").status_code == 200
        server.server.should_exit = True
        time.sleep(0.3)  # so that it mostly waits for the thread already; what is asserted holds either way
    finally:
        let.set()
        server.stop()
    assert server.searcher.closed


def test_ending_answers_what_was_taken_and_nothing_else(store: Path) -> None:
    with running(store, GatedSearcher) as server, ThreadPoolExecutor(3) as threads:
        first, second = threads.submit(asked, server), threads.submit(asked, server)
        assert server.searcher.begun.acquire(timeout=30)
        wait_for(lambda: server.service.queue.waiting == 1)
        loop = server.loop()
        loop.call_soon_threadsafe(server.server.begin_end)
        wait_for(lambda: server.service.draining)
        refused = asked(server)
        assert refused.status_code == 503
        assert refused.json()["error"]["message"] == "the service is shutting down"
        with server.client() as client:
            assert client.get("/ready").status_code == 503
            assert client.get("/health").status_code == 200
        server.searcher.let.release(2)
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        server.thread.join(30)
        assert not server.thread.is_alive()
        assert server.searcher.closed

"""Requests made to do harm: the right status, a service that lives, and nothing executed."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rapidin.service import Limits
from tests.service.conftest import QUESTION, SCRIPT, Running, running

pytestmark = pytest.mark.timeout(120)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def lives(server: Running) -> Iterator[None]:
    """After every test the service still finds what it found."""
    yield
    with server.client() as client:
        assert client.get("/health").json() == {"status": "alive"}
        assert client.post("/v1/search", json={**QUESTION, "rerank": 0}).status_code == 200


def test_a_script_in_a_training_row_stays_text(client: httpx.Client) -> None:
    found = client.post("/v1/search", json={**QUESTION, "where": ["number=1000"], "k": 20})
    assert found.headers["content-type"] == "application/json"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    hits = found.json()["proponents"]
    assert len(hits) == 7
    assert all(hit["response"].startswith(SCRIPT) and hit["metadata"]["source"] == SCRIPT for hit in hits)


def test_a_script_in_a_prompt_is_not_given_back_as_html(client: httpx.Client) -> None:
    found = client.post("/v1/search", json={"prompt": SCRIPT, "generation": SCRIPT, "where": [SCRIPT]})
    assert found.status_code == 422
    assert found.headers["content-type"] == "application/json"
    assert "html" not in client.get(f"/{SCRIPT}").headers["content-type"]


@pytest.mark.parametrize("name", ["prompt", "generation"])
def test_a_million_characters(client: httpx.Client, name: str) -> None:
    found = client.post("/v1/search", json={**QUESTION, name: "a" * 1_000_000})
    assert found.status_code == 422
    assert found.json()["error"]["message"].startswith(f"{name}: ")
    assert len(found.content) < 2_000


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    """No body follows, because a service that closes while it is sent may reset the connection under load."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
    connection.putrequest("POST", "/v1/search")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("name", ["k", "rerank", "max_new_tokens", "nprobe"])
@pytest.mark.parametrize("value", [10**9, 10**30, -1, 1.5, 1e300, "10", [10], {"a": 1}])
def test_numbers_beyond_the_limits(client: httpx.Client, name: str, value: Any) -> None:
    found = client.post("/v1/search", json={**QUESTION, name: value})
    assert found.status_code == 422
    assert found.json()["error"]["message"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"prompt":', 400),
        (b"{'prompt': 'a'}", 400),
        (b"\xff\xfe{", 400),
        (b'{"prompt": "\xed\xa0\x80"}', 422),
        (b'{"prompt": "a"} trailing', 400),
        (b"[" * 100_000, 400),
        (b'{"prompt": "a", "k": ' + b"1" * 10_000 + b"}", 400),
        (b'{"prompt": "a", "k": NaN}', 422),
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"prompt"', 422),
        (b"{}", 422),
        (b'{"prompt": {"$ne": null}}', 422),
        (b'{"prompt": "a", "\\ud800": 1}', 422),
        (b'{"prompt": "a", "__proto__": {"k": 1}}', 422),
    ],
)
def test_broken_json(client: httpx.Client, body: bytes, status: int) -> None:
    found = client.post("/v1/search", content=body, headers=JSON)
    assert found.status_code == status, found.text
    assert found.json()["error"].keys() == {"type", "message"}


def test_other_kinds_of_bodies(client: httpx.Client) -> None:
    body = json.dumps(QUESTION)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        assert client.post("/v1/search", content=body, headers={"Content-Type": kind}).status_code == 415


def test_a_body_without_end_is_cut_off(client: httpx.Client, server: Running) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 65_536
            yield b" " * 65_536

    try:
        found = client.post("/v1/search", content=chunks(), headers=JSON)
    except (httpx.WriteError, httpx.ReadError):
        pass  # the service had hung up while the client still sent
    else:
        assert found.status_code == 413
    assert sent < 50_000_000


def test_a_body_that_never_comes(store: Path) -> None:
    limits = Limits(body_seconds=1)
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
    with running(store, limits=limits) as server, socket.create_connection(server.address) as connection:
        connection.settimeout(30)
        connection.sendall(head)
        assert connection.recv(4_096).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "request_line",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
     b"GET " + b"/a" * 50_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"],
)  # fmt: skip
def test_what_is_hardly_http(server: Running, request_line: bytes) -> None:
    with socket.create_connection(server.address) as connection:
        connection.settimeout(30)
        connection.sendall(request_line)
        connection.shutdown(socket.SHUT_WR)
        assert not connection.recv(4_096).startswith(b"HTTP/1.1 2")


def test_the_wrong_host(client: httpx.Client) -> None:
    for path in ("/", "/v1/info", "/health"):
        found = client.get(path, headers={"Host": "evil.example"})
        assert (found.status_code, found.json()["error"]["type"]) == (421, "wrong_host")


def test_another_origin(client: httpx.Client) -> None:
    found = client.post("/v1/search", json=QUESTION, headers={"Origin": "http://evil.example"})
    assert found.status_code == 403
    found = client.options(
        "/v1/search", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert found.status_code == 403
    assert not any(name.startswith("access-control") for name in found.headers)


def test_the_wrong_token(store: Path) -> None:
    token = "0123456789abcdef"
    with running(store, token=token) as server, server.client() as client:
        for given in ("Bearer wrong", f"Bearer {token}x", f"Basic {token}", ""):
            found = client.post("/v1/search", json=QUESTION, headers={"Authorization": given})
            assert (found.status_code, found.json()["error"]["type"]) == (401, "unauthorized")
            # Not even the body is read.
            found = client.post("/v1/search", content=b" " * 2_000_000, headers={"Authorization": given, **JSON})
            assert found.status_code == 401
        assert client.post("/v1/search?token=" + token, json=QUESTION).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert client.post("/v1/search", json=QUESTION, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "a\0b", "' OR 1=1 --", "x" * 8_000, "🦀" * 500]
)
def test_ids_made_up(client: httpx.Client, id: str) -> None:
    found = client.get("/v1/samples", params={"id": id})
    assert found.status_code == 404
    assert len(found.content) < 3_000


@pytest.mark.parametrize(
    "expression",
    ["' OR 1=1 --=1", "id=' OR 1=1 --", "number=" + "9" * 900, "a" + " " * 900 + "b", "source~(", "source=\0",
     "id~" + "[" * 500, "=" * 999, "x" * 1_001],
)  # fmt: skip
def test_filters_made_up(client: httpx.Client, expression: str) -> None:
    found = client.post("/v1/search", json={**QUESTION, "rerank": 0, "where": [expression]})
    assert found.status_code in (200, 422)
    if found.status_code == 200:
        assert found.json()["proponents"] == []

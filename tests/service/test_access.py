"""Names, origins and tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from rapidin.service import ServiceSettings
from rapidin.service.access import Gate

TOKEN = "0123456789abcdef"


def status(
    settings: ServiceSettings,
    headers: dict[str, str] | list[tuple[str, str]],
    path: str = "/v1/info",
    method: str = "GET",
) -> Any:
    gate = Gate(PlainTextResponse("in"), settings)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, headers=headers)

    response = asyncio.run(ask())
    assert (response.status_code == 200) == (response.text == "in")
    return response.status_code


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "127.0.0.1", "localhost:1", "LocalHost", "[::1]:8000", "[::1]"]
)
def test_this_machine_by_its_own_names(host: str) -> None:
    assert status(ServiceSettings(), {"Host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example",
        "127.0.0.1@evil.example", "evil.example@127.0.0.1", "127.0.0.1/x", "localhost:x", "[::1", "",
        "2130706433", "127.0.0.1#", "localhost?a",
    ],
)  # fmt: skip
def test_by_other_names_nothing_is_told(host: str) -> None:
    for path in ("/", "/health", "/v1/info"):
        assert status(ServiceSettings(), {"Host": host}, path) == 421


def test_two_hosts_are_none() -> None:
    assert status(ServiceSettings(), [("Host", "localhost"), ("Host", "evil.example")]) == 421


def test_names_that_were_allowed() -> None:
    settings = ServiceSettings(token=TOKEN, allowed_hosts=("search.example",))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert status(settings, {"Host": "search.example", **bearer}) == 200
    assert status(settings, {"Host": "evil.example", **bearer}) == 421


def test_any_name_where_the_token_protects() -> None:
    settings = ServiceSettings(host="0.0.0.0", token=TOKEN)
    assert status(settings, {"Host": "any.example", "Authorization": f"Bearer {TOKEN}"}) == 200
    assert status(settings, {"Host": "any.example"}) == 401


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:8000", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:8001", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
def test_only_the_services_own_page_may_ask(origin: str, expected: int) -> None:
    assert status(ServiceSettings(), {"Origin": origin}) == expected


@pytest.mark.parametrize(
    "given",
    [
        None, "", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}0", f"Basic {TOKEN}", TOKEN,
        f"Bearer {TOKEN.upper()}", f"Bearer Bearer {TOKEN}",
    ],
)  # fmt: skip
def test_without_the_token_nothing_is_told(given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    for path in ("/v1/info", "/v1/search", "/metrics", "/v1/samples/a", "/nowhere", "/health/"):
        assert status(ServiceSettings(token=TOKEN), headers, path) == 401
    for path in ("/", "/health", "/ready", "/openapi.json"):
        assert status(ServiceSettings(token=TOKEN), headers, path) == 200
        assert status(ServiceSettings(token=TOKEN), headers, path, "POST") == 401  # or it could keep a body coming


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_token(scheme: str) -> None:
    assert status(ServiceSettings(token=TOKEN), {"Authorization": f"{scheme} {TOKEN}"}) == 200


def test_a_token_that_is_no_text_is_wrong() -> None:
    headers: Any = [(b"authorization", b"Bearer \xff\xfe")]
    assert status(ServiceSettings(token=TOKEN), headers) == 401

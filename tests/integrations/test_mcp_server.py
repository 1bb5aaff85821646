"""The MCP server, asked by the SDK's own client over the pipes of a real process."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

import rapidin
from rapidin.integrations.mcp_server import MOST_CHARACTERS, SHOWN_CHARACTERS, make_server

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "rapidin", "mcp"]


def asked(server: Any, work: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Client(server) as client:
            await work(client)

    asyncio.run(run())


def in_process(store: Path, work: Callable[[Client], Awaitable[None]]) -> None:
    with rapidin.Store.open(store) as opened:
        asked(make_server(opened, device="cpu"), work)


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


def test_an_agent_finds_samples_over_stdio(store: Path, searcher: rapidin.Searcher) -> None:
    expected = searcher.search("Name a colour.", "It is red", k=3, opponents=True, where=["number<20"])

    async def work(client: Client) -> None:
        assert client.server_info.name == "rapidin"
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"find_influential_samples", "get_sample", "store_info"}
        for tool in tools.values():
            assert tool.annotations.read_only_hint is True
            assert tool.description
        info = (await client.call_tool("store_info", {})).structured_content
        assert (info["samples"], info["metadata_fields"]) == (30, ["even", "number", "score", "source"])
        found = await client.call_tool(
            "find_influential_samples",
            {
                "prompt": "Name a colour.",
                "generation": "It is red",
                "k": 3,
                "opponents": True,
                "where": ["number<20"],
            },
        )
        assert not found.is_error
        content = found.structured_content
        assert json.loads(found.content[0].text) == content
        for name, hits in (("proponents", expected.proponents), ("opponents", expected.opponents)):
            assert [hit["id"] for hit in content[name]] == [hit.id for hit in hits]
            assert [hit["score"] for hit in content[name]] == pytest.approx([hit.score for hit in hits], abs=1e-6)
        sample = await client.call_tool("get_sample", {"id": "row-3"})
        assert sample.structured_content["metadata"] == {"source": "black", "number": 3, "even": False}
        assert "no sample has the id 'nobody'" in await refused(client, "get_sample", id="nobody")

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], str(store), "--device", "cpu"], env=environment, cwd=ROOT
    )
    asked(parameters, work)


def test_nothing_but_the_protocol_is_on_stdout(store: Path) -> None:
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "0"},
        },
    }
    messages = [
        request,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "store_info", "arguments": {}}},
    ]
    with subprocess.Popen(
        [*COMMAND, str(store), "--device", "cpu"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None and server.stdout is not None and server.stderr is not None
        for message in messages:
            server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]
        server.stdin.close()  # the client has gone
        rest, told = server.stdout.read(), server.stderr.read()
        assert server.wait(60) == 0
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[0]["result"]["serverInfo"]["name"] == "rapidin"
    assert rest == ""
    assert "the model is loaded" in told


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    result = subprocess.run(
        [*COMMAND, str(tmp_path / "none")], cwd=ROOT, capture_output=True, text=True, check=False, input=""
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert "there is no store" in result.stderr


def test_what_an_agent_may_not_ask_is_refused_clearly(store: Path) -> None:
    async def work(client: Client) -> None:
        find = "find_influential_samples"
        assert "less than or equal to 100" in await refused(client, find, prompt="A", k=10**9)
        assert "nothing is asked" in await refused(client, find)
        assert "at most 100000 characters" in await refused(client, find, prompt="x" * (MOST_CHARACTERS + 1))
        assert "fills the 256 tokens" in await refused(client, find, prompt="word " * 1000)
        assert "no sample has a field 'nonsense'" in await refused(client, find, prompt="A", where=["nonsense=1"])
        assert "at most 20 items" in await refused(client, find, prompt="A", where=["even=true"] * 21)
        endless = await refused(client, find, prompt="A", where=["response~(a+)+$"])
        assert "--allow-regular-expressions" in endless
        assert "Field required" in await refused(client, "get_sample")

    in_process(store, work)


def test_any_regular_expression_from_agents_that_are_trusted(store: Path) -> None:
    async def work(client: Client) -> None:
        arguments = {"prompt": "A", "generation": "B", "where": ["source~(re)+d"]}
        assert not (await client.call_tool("find_influential_samples", arguments)).is_error

    with rapidin.Store.open(store) as opened:
        asked(make_server(opened, regular_expressions=True, device="cpu"), work)


def test_long_texts_are_cut_and_explanations_are_short(tmp_path: Path, model_directory: Path, store: Path) -> None:
    from tests import worlds

    long = {"note": "b" * 5000, "list": [1] * 5000}
    rows = [{"id": "long", "prompt": "Say it.", "completion": "a" * 5000, **long}]
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    rapidin.ingest_files(
        tmp_path / "store", [data], model=str(model_directory), projection_dim=1024, curvature=False
    )

    async def work(client: Client) -> None:
        found = await client.call_tool(
            "find_influential_samples", {"prompt": "Say it.", "generation": "aaaa", "k": 1, "explain": True}
        )
        (hit,) = found.structured_content["proponents"]
        assert hit["response"] == "a" * SHOWN_CHARACTERS + "… (3000 more characters)"
        assert hit["metadata"]["note"] == "b" * SHOWN_CHARACTERS + "… (3000 more characters)"
        assert len(hit["metadata"]["list"]) < SHOWN_CHARACTERS + 50
        assert isinstance(hit["exact"], float)
        assert 1 <= len(hit["strongest_words"]) <= 10
        whole = await client.call_tool("get_sample", {"id": "long"})
        assert whole.structured_content["response"] == "a" * 5000

    in_process(tmp_path / "store", work)


def test_a_model_that_cannot_be_loaded_is_told_and_tried_again(store: Path, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        for _ in range(2):
            told = await refused(client, "find_influential_samples", prompt="A", generation="B")
            assert "there is no such directory" in told
        assert not (await client.call_tool("store_info", {})).is_error

    with rapidin.Store.open(store) as opened:
        asked(make_server(opened, model=str(tmp_path / "gone")), work)

"""``rapidin serve`` as a user starts and ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bad_input.command_line import FAILED, USAGE, CommandLine
from tests.service.conftest import QUESTION, wait_for

pytestmark = pytest.mark.timeout(180)
TOKEN = "0123456789abcdef"


@pytest.fixture
def rapidin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.delenv("RAPIDIN_TOKEN", raising=False)
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host", "0.0.0.0"], "--token-file FILE, or set RAPIDIN_TOKEN"),
        (["--host", "::"], "--token-file FILE, or set RAPIDIN_TOKEN"),
        (["--allow-host", "search.example"], "--allow-host"),
        (["--host", "no such host"], "no address of this machine"),
        (["--host", "192.0.2.1", "--token-file", "TOKEN"], "cannot listen at 192.0.2.1"),
        (["--token-file", "absent"], "No such file"),
        (["--port", "70000"], "65535"),
        (["--max-k", "0"], "max-k"),
    ],
)
def test_what_it_is_not_started_with(
    rapidin: CommandLine, store: Path, tmp_path: Path, options: list[str], reason: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    options = [str(tmp_path / "token") if option == "TOKEN" else option for option in options]
    outcome = rapidin("serve", store, *options)
    assert outcome.code == USAGE
    assert reason in outcome.stderr
    assert TOKEN not in outcome.stderr


def test_no_store(rapidin: CommandLine, tmp_path: Path) -> None:
    outcome = rapidin("serve", tmp_path / "absent")
    assert outcome.code == FAILED
    assert "absent" in outcome.stderr


def test_a_port_that_is_taken(rapidin: CommandLine, store: Path) -> None:
    from rapidin.service.running import listen

    with listen("127.0.0.1", 0) as taken:
        outcome = rapidin("serve", store, "--port", taken.getsockname()[1])
    assert outcome.code == USAGE
    assert "give another --port or --host" in outcome.stderr


def test_a_model_that_cannot_be_loaded_ends_it(
    rapidin: CommandLine, store: Path, other_model_directory: Path
) -> None:
    outcome = rapidin("serve", store, "--port", 0, "--model", other_model_directory)
    assert outcome.code == FAILED
    assert "not the model" in outcome.stderr or "another model" in outcome.stderr


def test_help_teaches(rapidin: CommandLine) -> None:
    text = " ".join(rapidin("serve", "--help").stdout.split())
    for part in ("curl", "/openapi.json", "/metrics", "RAPIDIN_TOKEN", "SIGTERM"):
        assert part in text


@contextmanager
def started(store: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rapidin", "serve", str(store), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address), process.communicate()
        yield process, address
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_signal_ends_it_when_all_is_answered(store: Path) -> None:
    with started(store, "--host", "0.0.0.0", RAPIDIN_TOKEN=TOKEN) as (process, address):
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
            wait_for(lambda: client.get("/ready").status_code == 200, 60)
            statuses: list[int] = []

            def ask() -> None:
                asked = {**QUESTION, "prompt": "very secret", "matrices": True, "k": 20}
                statuses.append(client.post("/v1/search", json=asked).status_code)

            thread = threading.Thread(target=ask)
            thread.start()
            wait_for(lambda: "rapidin_searches_running 1.0" in client.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            thread.join(60)
        output, log = process.communicate(timeout=60)
    assert statuses == [200]
    assert process.returncode == 0, log
    assert output == ""
    assert "POST /v1/search 200" in log
    assert "secret" not in log
    assert TOKEN not in log

"""Requests made from the service's own OpenAPI, right and wrong: no 500, and answers as they are described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rapidin.service import Limits
from rapidin.storage import Store
from tests.service.conftest import Running, running

CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
    ]
)
"""All but two: that right data are accepted (a filter's text is no schema's business), and that auth is enforced,
which `test_gate` and `test_hostile` test."""


SMALL = Limits(k=5, token_k=2, rerank=5, max_new_tokens=4, characters=200)
"""So that a search takes no time."""


def fuzzed(server: Running, examples: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis in a process of its own, as its documents say it is run."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", *options),
            *("--checks", CHECKS, "--max-examples", str(examples), "--seed", "7", "--generation-database", "none"),
            *("--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "60"),
            *("--suppress-health-check", "all", "--warnings", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.slow
def test_its_own_description_breaks_nothing(store: Path) -> None:
    with running(store, limits=SMALL) as server:
        result = fuzzed(server, 25)
        assert result.returncode == 0, result.stdout[-6_000:] + result.stderr[-2_000:]
        assert "No issues found" in result.stdout
        with server.client() as client:
            text = client.get("/metrics").text
    assert 'status="500"' not in text
    for route in ("/v1/search", "/v1/report", "/v1/samples/{id:anything}"):
        assert (
            f'rapidin_requests_total{{method="{"GET" if "samples" in route else "POST"}",route="{route}"' in text
        )


@pytest.mark.slow
def test_the_fuzzer_sees_what_is_wrong(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "info", lambda self: {"samples": "many"})
    with running(store) as server:
        result = fuzzed(server, 2, "--include-path", "/v1/info")
    assert result.returncode == 1
    assert "Response violates schema" in result.stdout

"""What commands on stores are expected to print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapidin.storage import Store
from tests.bad_input.command_line import CommandLine, Outcome
from tests.storage.derived.clusters import clustered


def report(outcome: Outcome, keys: set[str]) -> dict[str, Any]:
    """Take a report in JSON and check that it has these keys and no others."""
    found: dict[str, Any] = outcome.json
    assert found.keys() == keys
    return found


def said(outcome: Outcome, *expected: str) -> None:
    """Check what a command tells people when it is done."""
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr == ""
    for part in expected:
        assert part in outcome.stdout, outcome.stdout


def kinds(rapidin: CommandLine, store: Path) -> list[str]:
    return [index["name"] for index in rapidin("info", store, "--json").json["indexes"]]


def listed(rapidin: CommandLine, store: Path) -> str:
    """All samples, as 'list --json' prints them."""
    outcome = rapidin("list", store, "--limit", 0, "--json")
    assert outcome.code == 0
    return outcome.stdout


def scores(store: Path) -> dict[str, float]:
    """Score of each sample for one query."""
    with Store.open(store) as opened, opened.snapshot() as snapshot:
        ids, found = snapshot.scores(clustered(1, seed=9))
    return dict(zip(ids, found[0].tolist(), strict=True))

"""A little of the torture; ``make torture`` does it at length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.torture.faults import preloaded


@pytest.mark.slow
@pytest.mark.parametrize("part", ["faults", "power", "bytes", "soak"])
def test_nothing_is_lost_and_nothing_is_wrong(tmp_path: Path, part: str) -> None:
    done = preloaded(tmp_path, "--part", part, "--minutes", "0.5", "--json")
    assert done.stdout, done.stderr
    results = json.loads(done.stdout)
    assert sum(trials for trials, _ in results.values()) > 10
    assert [failure for _, failures in results.values() for failure in failures] == []

"""``rapidin delete``: ids and filters together."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.bad_input.command_line import CommandLine


def test_deleting_those_of_some_ids_that_meet_a_filter(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    asked = ("delete", store, "s0000", "s0001", "--where", "third=1")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "Delete those of the 2 given that meet third=1?" in rapidin(*asked).stderr
    assert rapidin(*asked, "--yes", "--json").json == {"deleted": 1}
    assert rapidin("show", store, "s0000").code == 0
    assert "only those of the ids that meet the filters are deleted" in " ".join(
        rapidin("delete", "--help").stdout.split()
    )

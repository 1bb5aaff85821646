"""``rapidin list``: what is printed if no sample matches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.command_line import CommandLine


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_list_without_a_match_says_why(rapidin: CommandLine, store: Path, empty: Path, json: tuple) -> None:
    for arguments, expected in (
        ((store, "--where", "third=7"), "no sample meets the filter\n"),
        ((store, "--where", "third=1", "--offset", 200), "there are only 200 samples, and --offset 200 skips"),
        ((empty,), "the store holds no samples\n"),
    ):
        outcome = rapidin("list", *arguments, *json)
        assert (outcome.code, outcome.stdout) == (0, "")
        assert outcome.stderr.startswith(expected)


def test_a_match_is_listed_without_a_message(rapidin: CommandLine, store: Path) -> None:
    assert rapidin("list", store, "--where", "third=1", "--limit", 0).stderr == ""

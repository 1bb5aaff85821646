"""Progress on stderr: a running count, with the steps on the way to the next one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rapidin.commands import output


def test_a_count_shows_the_steps_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(output, "stderr", lambda: console)
    with output.counting("queries answered") as count:
        monkeypatch.setattr("rich.status.Status.update", lambda _, text: shown.append(text))
        count("probes", 1_500, 2_000)
        count(1)
        count("tokens", 2, 3)
    assert shown == [
        "0 queries answered; probes: 1,500 of 2,000",
        "1 queries answered",
        "1 queries answered; tokens: 2 of 3",
    ]


def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "stderr", lambda: Console(file=io.StringIO()))
    with output.counting("queries answered") as count:
        assert count is None

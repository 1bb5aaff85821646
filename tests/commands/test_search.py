"""``rapidin search`` in stores that have indexes."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.command_line import CommandLine
from tests.commands.expectations import said


def test_search_says_which_way_it_took(
    rapidin: CommandLine, tmp_path: Path, model_directory: Path, twelve_rows: Path
) -> None:
    store = tmp_path / "store"
    made = ("ingest", store, "--data", twelve_rows, "--model", model_directory, "--projection-dim", 128)
    assert rapidin(*made).code == 0
    asked = ("search", store, "--prompt", "Name it.", "--generation", "It is red.", "--json")
    exact = rapidin(*asked).json
    assert exact["index"] == "exact"
    assert rapidin("index", store, "--type", "rabitq").code == 0
    assert rapidin("index", store, "--nlist", 2).code == 0
    assert rapidin(*asked).json == exact | {"index": "rabitq"}
    assert rapidin(*asked, "--index", "ivf", "--nprobe", 2).json == exact | {"index": "ivf"}
    assert rapidin(*asked, "--nprobe", 2).json["index"] == "ivf"
    assert rapidin(*asked, "--exact").json == exact
    assert rapidin(*asked, "--where", "even=true").json["index"] == "exact"
    for_people = asked[:-1]
    said(rapidin(*for_people), "searched through index rabitq: approximate", "--exact misses none")
    said(rapidin(*for_people, "--exact"), "searched exactly")

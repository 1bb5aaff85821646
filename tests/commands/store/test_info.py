"""``rapidin info``: the report in JSON and in words."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.command_line import CommandLine
from tests.commands.expectations import kinds, said
from tests.storage.derived.clusters import COUNT, WIDTH, clustered_store


def test_info_is_given_as_json(rapidin: CommandLine, store: Path) -> None:
    info = rapidin("info", store, "--json").json
    wanted = {"samples", "projection_dim", "bits", "bytes_vectors", "model", "adapter", "indexes", "segments"}
    assert wanted <= info.keys()
    assert (info["samples"], info["projection_dim"], info["bits"]) == (COUNT, WIDTH, 4)
    assert (info["model"], info["adapter"]) == ("/models/tiny", None)
    assert [segment["rows"] for segment in info["segments"]] == [200, 200, 200]
    assert [index["name"] for index in info["indexes"]] == ["exact"]
    assert rapidin("index", store, "--type", "rabitq").code == 0
    assert kinds(rapidin, store) == ["exact", "rabitq"]


def test_info_is_given_in_words(rapidin: CommandLine, store: Path) -> None:
    assert rapidin("index", store, "--nlist", 12).code == 0
    said(rapidin("info", store), "600", "256", "exactly", "through ivf")


def test_one_bit_is_written_in_the_singular(rapidin: CommandLine, tmp_path: Path) -> None:
    clustered_store(tmp_path / "bits", bits=1).close()
    said(rapidin("info", tmp_path / "bits"), "1 bit a number")

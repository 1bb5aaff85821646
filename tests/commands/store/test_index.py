"""``rapidin index``: indexes that are built, extended, repaired and dropped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rapidin.storage import Store
from tests.bad_input.command_line import FAILED, USAGE, CommandLine
from tests.commands.expectations import kinds, report, said
from tests.storage.derived.clusters import COUNT, clustered, clustered_store, commit

INDEX_KEYS = {
    *("name", "trained", "added", "covered", "uncovered", "bytes", "seconds", "parameters", "advice"),
    "repaired",
}


def test_ivf_is_built_extended_and_built_again(rapidin: CommandLine, store: Path) -> None:
    built = report(rapidin("index", store, "--nlist", 12, "--nprobe", 2, "--json"), INDEX_KEYS)
    assert (built["name"], built["trained"], built["added"], built["covered"]) == ("ivf", True, COUNT, COUNT)
    assert (built["parameters"]["nlist"], built["parameters"]["nprobe"]) == (12, 2)
    with Store.open(store) as opened:
        commit(opened, COUNT, clustered(50, seed=2))
    extended = report(rapidin("index", store, "--json"), INDEX_KEYS)
    assert (extended["trained"], extended["added"], extended["uncovered"]) == (False, 50, 0)
    assert extended["parameters"]["nlist"] == 12
    rapidin("index", store, "--nlist", 5).error(USAGE, store, "add --retrain")
    rebuilt = report(rapidin("index", store, "--nlist", 5, "--retrain", "--json"), INDEX_KEYS)
    assert (rebuilt["trained"], rebuilt["added"], rebuilt["parameters"]["nlist"]) == (True, COUNT + 50, 5)
    assert rapidin("verify", store).code == 0


def test_rabitq_is_built(rapidin: CommandLine, store: Path) -> None:
    built = report(rapidin("index", store, "--type", "rabitq", "--json"), INDEX_KEYS)
    assert (built["name"], built["trained"], built["added"]) == ("rabitq", True, COUNT)
    rapidin("index", store, "--type", "rabitq", "--nlist", 3).error(USAGE, "leave them out with 'rabitq'")
    assert rapidin("verify", store).code == 0


def test_what_was_done_is_told_in_words(rapidin: CommandLine, store: Path) -> None:
    said(rapidin("index", store, "--nlist", 12), "index ivf built: 600 samples added", "of 12 lists are read")
    said(rapidin("index", store), "index ivf extended: 0 samples added")
    said(rapidin("index", store, "--type", "rabitq"), "index rabitq built")
    said(rapidin("index", store, "--drop"), "index ivf is deleted")


def test_damage_is_repaired(rapidin: CommandLine, store: Path) -> None:
    for kind in ("ivf", "rabitq"):
        assert rapidin("index", store, "--type", kind).code == 0
    shutil.rmtree(store / "indexes")
    advice = "files are missing or damaged: 'rapidin index"
    assert rapidin("info", store).stdout.count("files are missing or damaged") == 2
    assert all(advice in index["advice"] for index in rapidin("info", store, "--json").json["indexes"][1:])
    said(rapidin("index", store, "--type", "rabitq"), "3 of its files or rows were missing or damaged")
    built = report(rapidin("index", store, "--json"), INDEX_KEYS)
    assert (built["trained"], built["repaired"], built["covered"]) == (True, 1, COUNT)
    assert rapidin("verify", store).code == 0
    assert "missing" not in rapidin("info", store).stdout


def test_options_of_the_other_kind_are_refused(rapidin: CommandLine, store: Path) -> None:
    for flags in (("--recall", 0.95), ("--nprobe", 2), ("--train-sample", 100)):
        outcome = rapidin("index", store, "--type", "rabitq", *flags)
        outcome.error(USAGE, flags[0], "leave them out with 'rabitq'")


def test_an_index_that_misses_much_is_reported(rapidin: CommandLine, store: Path) -> None:
    said(rapidin("index", store, "--nlist", 60, "--nprobe", 1), "it misses too much", "only if told to")
    said(rapidin("info", store), "it misses too much")


@pytest.mark.parametrize(
    "flags", [("--nlist", 3), ("--nprobe", 1), ("--recall", 0.95), ("--train-sample", 9), ("--retrain",)]
)
def test_dropping_takes_no_options_of_building(rapidin: CommandLine, store: Path, flags: tuple) -> None:
    assert rapidin("index", store, "--nlist", 12).code == 0
    rapidin("index", store, "--drop", *flags).error(USAGE, "--drop deletes an index")
    assert kinds(rapidin, store) == ["exact", "ivf"]


def test_an_index_is_dropped(rapidin: CommandLine, store: Path) -> None:
    rapidin("index", store, "--drop").error(FAILED, store, "there is no index 'ivf' to drop")
    assert rapidin("index", store, "--nlist", 12).code == 0
    rapidin("index", store, "--type", "rabitq", "--drop").error(FAILED, "there is no index 'rabitq' to drop")
    assert rapidin("index", store, "--drop", "--json").json == {"dropped": "ivf"}
    assert kinds(rapidin, store) == ["exact"]
    rapidin("index", store, "--drop").error(FAILED, store, "there is no index 'ivf' to drop")


@pytest.mark.parametrize(
    "flags",
    [
        ("--nlist", 0),
        ("--nlist", 601),
        ("--nprobe", 0),
        ("--nlist", 4, "--nprobe", 5),
        ("--recall", 0),
        ("--recall", 1.5),
        ("--train-sample", 0),
        ("--type", "flat"),
    ],
)
def test_values_that_cannot_be_used_are_refused(rapidin: CommandLine, store: Path, flags: tuple) -> None:
    rapidin("index", store, *flags).error(USAGE, flags[-2])
    assert kinds(rapidin, store) == ["exact"]


def test_a_store_without_samples_gets_no_index(rapidin: CommandLine, empty: Path) -> None:
    for kind in ("ivf", "rabitq"):
        rapidin("index", empty, "--type", kind).error(FAILED, empty, "holds no samples; ingest some")


def test_a_store_of_one_bit_is_rabitq_already(rapidin: CommandLine, tmp_path: Path) -> None:
    clustered_store(tmp_path / "bits", bits=1).close()
    rapidin("index", tmp_path / "bits", "--type", "rabitq").error(USAGE, "one bit per number", "--type ivf")

"""The commands that look after a store, called as a user does: reports, exit codes, what is left on disk."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapidin.storage import Store
from tests import worlds
from tests.bad_input.command_line import FAILED, USAGE, CommandLine, Outcome
from tests.storage.derived.clusters import COUNT, WIDTH, clustered, clustered_store, commit, settings_of

INDEX_KEYS = {
    *("name", "trained", "added", "covered", "uncovered", "bytes", "seconds", "parameters", "advice"),
    "repaired",
}
COMPACT_KEYS = {
    *("segments_before", "segments_after", "removed", "bytes_before", "bytes_after", "seconds"),
    *("uncovered", "notes"),
}
EXPORT_KEYS = {"path", "format", "samples", "bytes", "seconds", "notes"}
IMPORT_KEYS = {"added", "replaced", "skipped", "samples_total"}
RECODE_KEYS = {"samples", "bits", "bytes_before", "bytes_after", "seconds", "notes"}


@pytest.fixture
def rapidin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store"
    clustered_store(path, bits=4).close()
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", worlds.rows(12))


@pytest.fixture
def store(tmp_path: Path, template: Path) -> Path:
    """600 samples in three segments, with 4 bits a number and the metadata field 'third'."""
    return Path(shutil.copytree(template, tmp_path / "store"))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    Store.create(tmp_path / "empty", settings_of(4)).close()
    return tmp_path / "empty"


def report(outcome: Outcome, keys: set[str]) -> dict[str, Any]:
    """A report in JSON, which has these keys and no others."""
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


class TestInfo:
    def test_json(self, rapidin: CommandLine, store: Path) -> None:
        info = rapidin("info", store, "--json").json
        wanted = {"samples", "projection_dim", "bits", "bytes_vectors", "model", "adapter", "indexes", "segments"}
        assert wanted <= info.keys()
        assert (info["samples"], info["projection_dim"], info["bits"]) == (COUNT, WIDTH, 4)
        assert (info["model"], info["adapter"]) == ("/models/tiny", None)
        assert [segment["rows"] for segment in info["segments"]] == [200, 200, 200]
        assert [index["name"] for index in info["indexes"]] == ["exact"]
        assert rapidin("index", store, "--type", "rabitq").code == 0
        assert kinds(rapidin, store) == ["exact", "rabitq"]

    def test_for_people(self, rapidin: CommandLine, store: Path) -> None:
        assert rapidin("index", store, "--nlist", 12).code == 0
        said(rapidin("info", store), "600", "256", "exactly", "through ivf")


class TestIndex:
    def test_ivf_is_built_extended_and_built_anew(self, rapidin: CommandLine, store: Path) -> None:
        built = report(rapidin("index", store, "--nlist", 12, "--nprobe", 2, "--json"), INDEX_KEYS)
        assert (built["name"], built["trained"], built["added"], built["covered"]) == ("ivf", True, COUNT, COUNT)
        assert (built["parameters"]["nlist"], built["parameters"]["nprobe"]) == (12, 2)
        with Store.open(store) as opened:
            commit(opened, COUNT, clustered(50, seed=2))
        extended = report(rapidin("index", store, "--json"), INDEX_KEYS)
        assert (extended["trained"], extended["added"], extended["uncovered"]) == (False, 50, 0)
        assert extended["parameters"]["nlist"] == 12
        rapidin("index", store, "--nlist", 5).error(USAGE, store, "add --retrain")
        anew = report(rapidin("index", store, "--nlist", 5, "--retrain", "--json"), INDEX_KEYS)
        assert (anew["trained"], anew["added"], anew["parameters"]["nlist"]) == (True, COUNT + 50, 5)
        assert rapidin("verify", store).code == 0

    def test_rabitq(self, rapidin: CommandLine, store: Path) -> None:
        built = report(rapidin("index", store, "--type", "rabitq", "--json"), INDEX_KEYS)
        assert (built["name"], built["trained"], built["added"]) == ("rabitq", True, COUNT)
        rapidin("index", store, "--type", "rabitq", "--nlist", 3).error(USAGE, "leave them out with 'rabitq'")
        assert rapidin("verify", store).code == 0

    def test_for_people(self, rapidin: CommandLine, store: Path) -> None:
        said(rapidin("index", store, "--nlist", 12), "index ivf built: 600 samples added", "of 12 lists are read")
        said(rapidin("index", store), "index ivf extended: 0 samples added")
        said(rapidin("index", store, "--type", "rabitq"), "index rabitq built")
        said(rapidin("index", store, "--drop"), "index ivf is deleted")

    def test_damage_is_made_good(self, rapidin: CommandLine, store: Path) -> None:
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

    def test_options_of_the_other_kind(self, rapidin: CommandLine, store: Path) -> None:
        for flags in (("--recall", 0.95), ("--nprobe", 2), ("--train-sample", 100)):
            outcome = rapidin("index", store, "--type", "rabitq", *flags)
            outcome.error(USAGE, flags[0], "leave them out with 'rabitq'")

    def test_what_misses_much_is_told(self, rapidin: CommandLine, store: Path) -> None:
        said(rapidin("index", store, "--nlist", 60, "--nprobe", 1), "it misses too much", "only if told to")
        said(rapidin("info", store), "it misses too much")

    @pytest.mark.parametrize(
        "flags", [("--nlist", 3), ("--nprobe", 1), ("--recall", 0.95), ("--train-sample", 9), ("--retrain",)]
    )
    def test_drop_and_build(self, rapidin: CommandLine, store: Path, flags: tuple) -> None:
        assert rapidin("index", store, "--nlist", 12).code == 0
        rapidin("index", store, "--drop", *flags).error(USAGE, "--drop deletes an index")
        assert kinds(rapidin, store) == ["exact", "ivf"]

    def test_drop(self, rapidin: CommandLine, store: Path) -> None:
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
    def test_values_that_cannot_be_used(self, rapidin: CommandLine, store: Path, flags: tuple) -> None:
        rapidin("index", store, *flags).error(USAGE, flags[-2])
        assert kinds(rapidin, store) == ["exact"]

    def test_a_store_without_samples(self, rapidin: CommandLine, empty: Path) -> None:
        for kind in ("ivf", "rabitq"):
            rapidin("index", empty, "--type", kind).error(FAILED, empty, "holds no samples; ingest some")

    def test_a_store_of_one_bit_is_rabitq_already(self, rapidin: CommandLine, tmp_path: Path) -> None:
        clustered_store(tmp_path / "bits", bits=1).close()
        rapidin("index", tmp_path / "bits", "--type", "rabitq").error(USAGE, "one bit per number", "--type ivf")


class TestCompact:
    def test_space_is_given_back(self, rapidin: CommandLine, store: Path) -> None:
        assert rapidin("delete", store, "--where", "third=0", "--yes", "--json").json == {"deleted": 200}
        before, kept = listed(rapidin, store), scores(store)
        done = report(rapidin("compact", store, "--json"), COMPACT_KEYS)
        assert (done["segments_before"], done["segments_after"], done["removed"]) == (3, 1, 200)
        assert done["bytes_after"] < done["bytes_before"]
        assert (listed(rapidin, store), scores(store)) == (before, kept)
        again = report(rapidin("compact", store, "--json"), COMPACT_KEYS)
        assert (again["segments_before"], again["segments_after"], again["removed"]) == (1, 1, 0)
        assert rapidin("verify", store).code == 0

    def test_indexes_are_to_be_extended(self, rapidin: CommandLine, store: Path) -> None:
        for kind in ("ivf", "rabitq"):
            assert rapidin("index", store, "--type", kind).code == 0
        assert rapidin("delete", store, "s0000", "s0300").code == 0
        outcome = rapidin("compact", store)
        for kind in ("ivf", "rabitq"):
            command = f"rapidin index {store} --type {kind}"
            said(outcome, f"index {kind!r} no longer covers 598 samples: extend it with '{command}'")
        described = rapidin("info", store).stdout
        assert "recall" not in described and "0 B" not in described
        assert described.count("it covers 0 of 598 samples") == 2
        for kind in ("ivf", "rabitq"):
            assert rapidin("index", store, "--type", kind, "--json").json["covered"] == 598
        assert "it covers" not in rapidin("info", store).stdout
        assert "no longer" not in rapidin("compact", store).stdout
        assert rapidin("compact", store, "--json").json["uncovered"] == {}

    def test_commands_can_be_copied(
        self, rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: Path
    ) -> None:
        """Lines are not wrapped, and names of directories are not taken for markup."""
        odd = store.rename(store.with_name("a [b] store"))
        assert rapidin("index", odd, "--type", "rabitq").code == 0
        real = monkeypatch.setenv
        monkeypatch.setattr(monkeypatch, "setenv", lambda name, value: real(name, "40"))
        assert f"'rapidin index {odd} --type rabitq'" in rapidin("compact", odd).stdout

    def test_for_people(self, rapidin: CommandLine, store: Path, empty: Path) -> None:
        said(rapidin("compact", store), "3 → 1 files", "0 deleted samples are gone")
        said(rapidin("compact", empty), "0 → 0 files")

    @pytest.mark.parametrize("fraction", ["-0.1", "1.5", "nan", "half"])
    def test_a_fraction_that_is_none(self, rapidin: CommandLine, store: Path, fraction: str) -> None:
        rapidin("compact", store, f"--fraction={fraction}").error(USAGE, "--fraction")


FORMATS = {"safetensors": {"vectors-00000.safetensors"}, "numpy": {"vectors.npy"}}


class TestExport:
    @pytest.mark.parametrize("format", FORMATS)
    def test_both_formats(self, rapidin: CommandLine, store: Path, tmp_path: Path, format: str) -> None:
        to = tmp_path / "exported"
        done = report(rapidin("export", store, to, "--format", format, "--json"), EXPORT_KEYS)
        assert (done["path"], done["format"], done["samples"]) == (str(to), format, COUNT)
        assert {path.name for path in to.iterdir()} == {"store.json", "samples.parquet"} | FORMATS[format]
        assert done["bytes"] == sum(path.stat().st_size for path in to.iterdir())
        if format == "numpy":
            assert np.load(to / "vectors.npy").shape == (COUNT, WIDTH)

    def test_a_filter(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        chosen = ("--where", "third=1", "--where", "id<s0300")
        done = report(rapidin("export", store, tmp_path / "some", *chosen, "--json"), EXPORT_KEYS)
        assert done["samples"] == 100
        rapidin("export", store, tmp_path / "none", "--where", "colour=red").error(USAGE, "'colour'")
        rapidin("export", store, tmp_path / "none", "--format", "csv").error(USAGE, "--format")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["some", "store"]

    def test_for_people(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        said(rapidin("export", store, tmp_path / "to"), "600 samples", f"in {tmp_path / 'to'}")

    def test_a_directory_that_is_taken(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        to = tmp_path / "exported"
        to.mkdir()
        (to / "mine.txt").write_text("mine")
        rapidin("export", store, to).error(FAILED, to, "the directory holds 'mine.txt'; give a new or empty one")
        rapidin("export", store, to / "mine.txt").error(FAILED, to / "mine.txt", "new or empty directory")
        rapidin("export", store, store).error(FAILED, store, "give a new or empty one")
        assert [path.name for path in to.iterdir()] == ["mine.txt"]
        (to / "mine.txt").unlink()
        assert rapidin("export", store, to).code == 0


class TestImport:
    @pytest.fixture
    def exported(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> Path:
        assert rapidin("export", store, tmp_path / "exported").code == 0
        return tmp_path / "exported"

    def test_a_new_store(self, rapidin: CommandLine, store: Path, exported: Path, tmp_path: Path) -> None:
        new = tmp_path / "new"
        done = report(rapidin("import", new, exported, "--json"), IMPORT_KEYS)
        assert done == {"added": COUNT, "replaced": 0, "skipped": 0, "samples_total": COUNT}
        assert rapidin("info", new, "--json").json["bits"] == 4
        assert listed(rapidin, new) == listed(rapidin, store)
        assert rapidin("verify", new).code == 0

    def test_an_existing_store(self, rapidin: CommandLine, store: Path, exported: Path) -> None:
        assert rapidin("delete", store, "s0000", "s0599", "--yes").code == 0
        done = report(rapidin("import", store, exported, "--json"), IMPORT_KEYS)
        assert done == {"added": 2, "replaced": 0, "skipped": COUNT - 2, "samples_total": COUNT}
        said(rapidin("import", store, exported), "0 added, 0 replaced, 600 there already", "holds 600 samples")

    @pytest.mark.parametrize("bits", [16, 4, 1])
    def test_bits(self, rapidin: CommandLine, exported: Path, tmp_path: Path, bits: int) -> None:
        new = tmp_path / "new"
        assert rapidin("import", new, exported, "--bits", bits).code == 0
        assert rapidin("info", new, "--json").json["bits"] == bits
        other = 16 if bits == 4 else 4
        rapidin("import", new, exported, "--bits", other).error(FAILED, new, f"has {bits} bits, not {other}")

    def test_bits_that_there_are_not(self, rapidin: CommandLine, exported: Path, tmp_path: Path) -> None:
        rapidin("import", tmp_path / "new", exported, "--bits", 3).error(USAGE, "--bits 3", "16, 4, 1")
        assert not (tmp_path / "new").exists()

    def test_a_store_of_other_settings(self, rapidin: CommandLine, exported: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        Store.create(other, settings_of(4, dimension=128)).close()
        rapidin("import", other, exported).error(
            FAILED, other, "projection dimension (128 and 256)", "a new store"
        )
        assert rapidin("info", other, "--json").json["samples"] == 0

    def test_what_is_no_export(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        for place in (store, tmp_path / "absent"):
            rapidin("import", tmp_path / "new", place).error(FAILED, place, "no export of a store")
        assert not (tmp_path / "new").exists()


class TestRecode:
    @pytest.mark.parametrize("bits", [16, 4, 1])
    def test_bits(self, rapidin: CommandLine, store: Path, tmp_path: Path, bits: int) -> None:
        new = tmp_path / "new"
        outcome = rapidin("recode", store, new, "--bits", bits, "--json")
        done = report(outcome, RECODE_KEYS)
        assert (done["samples"], done["bits"]) == (COUNT, bits)
        assert ("not better" in outcome.stderr) == (bits == 16)
        # Headers of files and factors of rows beside the numbers themselves.
        assert done["bytes_after"] / done["bytes_before"] == pytest.approx(bits / 4, rel=0.3)
        assert rapidin("info", new, "--json").json["bits"] == bits
        assert listed(rapidin, new) == listed(rapidin, store)
        assert rapidin("verify", new).code == 0

    def test_for_people(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        said(rapidin("recode", store, tmp_path / "new", "--bits", 1), f"600 samples in {tmp_path / 'new'}")

    def test_a_disk_without_room_is_seen_at_once(
        self, rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path
    ) -> None:
        """Before any vector is coded; room for vectors alone is too little."""
        from rapidin.storage import snapshot

        vectors = 600 * 128  # 256 numbers of 4 bits
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=vectors + 20_000))
        monkeypatch.setattr(snapshot, "decoded_vectors", None)
        new = tmp_path / "new"
        rapidin("recode", store, new, "--bits", 4).error(FAILED, "bytes are needed and 96,800 bytes are free")
        assert [path.name for path in tmp_path.iterdir()] == ["store"]

    def test_a_target_that_is_taken(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        for taken in (store, tmp_path):
            rapidin("recode", store, taken, "--bits", 1).error(FAILED, taken, "give a new or empty one")
        assert [path.name for path in tmp_path.iterdir()] == ["store"]

    def test_bits_that_there_are_not(self, rapidin: CommandLine, store: Path, tmp_path: Path) -> None:
        rapidin("recode", store, tmp_path / "new", "--bits", 3).error(USAGE, "--bits 3", "16, 4, 1")
        rapidin("recode", store, tmp_path / "new").error(USAGE, "--bits")
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


INTERRUPTED = {
    "index": ("rapidin.storage.Store.build_index", "nothing is lost, and the same command goes on"),
    "compact": ("rapidin.storage.Store.compact", "nothing is lost, and the same command goes on"),
    "export": ("rapidin.storage.export_vectors", "nothing was written"),
    "import": ("rapidin.storage.import_vectors", "what was added stays, and the same command goes on"),
    "recode": ("rapidin.storage.recode", "there is no copy"),
    "search": ("rapidin.storage.Store.snapshot", "nothing was changed"),
    "verify": ("rapidin.storage.Store.verify", "not everything was checked"),
}


@pytest.mark.parametrize("command", INTERRUPTED)
def test_an_interruption_says_what_it_left(
    rapidin: CommandLine, monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path, command: str
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    function, expected = INTERRUPTED[command]
    monkeypatch.setattr(function, interrupted)
    more = {"export": ["to"], "import": ["from"], "recode": ["to", "--bits", 1], "search": ["--prompt", "x"]}
    outcome = rapidin(command, store, *more.get(command, []))
    assert (outcome.code, outcome.stdout) == (130, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"interrupted; {expected}")


class TestList:
    @pytest.mark.parametrize("json", [(), ("--json",)])
    def test_without_a_match(self, rapidin: CommandLine, store: Path, empty: Path, json: tuple) -> None:
        for arguments, expected in (
            ((store, "--where", "third=7"), "no sample meets the filter\n"),
            ((store, "--where", "third=1", "--offset", 200), "there are only 200 samples, and --offset 200 skips"),
            ((empty,), "the store holds no samples\n"),
        ):
            outcome = rapidin("list", *arguments, *json)
            assert (outcome.code, outcome.stdout) == (0, "")
            assert outcome.stderr.startswith(expected)

    def test_a_match(self, rapidin: CommandLine, store: Path) -> None:
        assert rapidin("list", store, "--where", "third=1", "--limit", 0).stderr == ""


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


def test_one_bit_is_one(rapidin: CommandLine, tmp_path: Path) -> None:
    clustered_store(tmp_path / "bits", bits=1).close()
    said(rapidin("info", tmp_path / "bits"), "1 bit a number")


@pytest.mark.parametrize("below", ["new", "segments/new", "a/b/new"])
@pytest.mark.parametrize("command", ["export", "recode", "import"])
def test_a_place_inside_a_store(
    rapidin: CommandLine, store: Path, tmp_path: Path, command: str, below: str
) -> None:
    place = store / below
    before = sorted(store.rglob("*"))
    assert rapidin("export", store, tmp_path / "exported").code == 0
    arguments = {
        "export": (store, place),
        "recode": (store, place, "--bits", 1),
        "import": (place, tmp_path / "exported"),
    }
    rapidin(command, *arguments[command]).error(FAILED, place, f"inside the store {store}", "elsewhere")
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize("command", ["index", "compact", "export", "recode"])
def test_no_store_there(rapidin: CommandLine, tmp_path: Path, command: str) -> None:
    more = {"export": (tmp_path / "to",), "recode": (tmp_path / "to", "--bits", 4)}.get(command, ())
    rapidin(command, tmp_path / "absent", *more).error(FAILED, tmp_path / "absent", "there is no store")
    assert list(tmp_path.iterdir()) == []


class TestOfAModel:
    """Ingest and search, which need one."""

    @pytest.mark.parametrize("bits", [None, 16, 4, 1])
    def test_bits(
        self, rapidin: CommandLine, tmp_path: Path, model_directory: Path, data: Path, bits: int | None
    ) -> None:
        store = tmp_path / "store"
        made = ("ingest", store, "--data", data, "--model", model_directory, "--projection-dim", 64)
        assert rapidin(*made, *(() if bits is None else ("--bits", bits))).code == 0
        has = bits or 4
        assert rapidin("info", store, "--json").json["bits"] == has
        assert rapidin("ingest", store, "--data", data, "--bits", has, "--json").json["skipped"] == 12
        other = 1 if has == 16 else 16
        expected = (store, f"bits is {has}, not {other}", "ingest into a new store")
        rapidin("ingest", store, "--data", data, "--bits", other).error(FAILED, *expected)
        rapidin("ingest", store, "--data", data, "--bits", 3).error(USAGE, "--bits 3 cannot be used")

    def test_search_says_which_way_it_took(
        self, rapidin: CommandLine, tmp_path: Path, model_directory: Path, data: Path
    ) -> None:
        store = tmp_path / "store"
        made = ("ingest", store, "--data", data, "--model", model_directory, "--projection-dim", 64)
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

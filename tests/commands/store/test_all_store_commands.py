"""What holds for several commands: interruptions, places inside a store, and stores that do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.command_line import FAILED, CommandLine

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


@pytest.mark.parametrize("below", ["new", "segments/new", "a/b/new"])
@pytest.mark.parametrize("command", ["export", "recode", "import"])
def test_a_place_inside_a_store_is_refused(
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
def test_a_store_that_does_not_exist_is_an_error(rapidin: CommandLine, tmp_path: Path, command: str) -> None:
    more = {"export": (tmp_path / "to",), "recode": (tmp_path / "to", "--bits", 4)}.get(command, ())
    rapidin(command, tmp_path / "absent", *more).error(FAILED, tmp_path / "absent", "there is no store")
    assert list(tmp_path.iterdir()) == []
